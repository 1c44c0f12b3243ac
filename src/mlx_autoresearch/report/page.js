"use strict";
document.body.classList.add("js");
const table = document.getElementById("experiments");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    const key = (row) => row.cells[column].dataset.v;
    const numbers = head.classList.contains("number");
    const empty = (value) => value === "" || value === undefined;
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y);  // what was not measured comes last either way
      const order = numbers ? x - y : x.localeCompare(y);
      return ascending ? order : -order;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...rows);
  }));
  const hidden = new Set();
  const search = document.getElementById("search");
  const filter = () => rows.forEach((row) => {
    row.hidden = hidden.has(row.dataset.status) || !row.textContent.toLowerCase().includes(search.value.toLowerCase());
  });
  document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => {
    const status = button.dataset.filter;
    if (!hidden.delete(status)) hidden.add(status);
    button.setAttribute("aria-pressed", !hidden.has(status));
    filter();
  }));
  search.addEventListener("input", filter);
  const reveal = () => {  // a point of the staircase leads to a row that may be hidden, and opens it
    const row = document.getElementById(location.hash.slice(1));
    if (row && rows.includes(row)) {
      row.hidden = false;
      row.querySelector("details").open = true;
      row.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
}
