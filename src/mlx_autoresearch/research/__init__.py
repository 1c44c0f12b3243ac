"""The overnight search: proposes, tries, measures and keeps, one change at a time, without anybody watching."""
