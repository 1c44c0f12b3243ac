#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <random>

#include "rendezvous.h"

namespace sim {
namespace {

constexpr uint32_t kQueue = 2 * kMaxThreads;  // a power of two; a thread is in the queue once at most

Thread* queue[kQueue];
uint32_t head = 0, tail = 0;
int order = 0;
std::mt19937 random_source;
Context launcher;

void push(Thread* thread) { queue[tail++ % kQueue] = thread; }
Thread* pop() { return head == tail ? nullptr : queue[head++ % kQueue]; }

void switch_to(Context& from, Thread* next) {
  machine->switches++;
  machine->current = next;
  switch_context(from, next ? next->context : launcher);
}

template <class Iterator>
void arrange(Iterator first, Iterator last) {
  if (order == 1) std::reverse(first, last);
  if (order >= 2) std::shuffle(first, last, random_source);
}

void push_arranged(Thread** first, Thread** last) {
  arrange(first, last);
  for (; first != last; ++first) push(*first);
}

void thread_main() {
  // A copy on this thread's own stack: what the kernel reads from it is private memory.
  MslThread attributes = machine->current->attributes;
  machine->launch->entry(machine->arguments, &attributes);
  thread_returned(*machine->current);
  leave();
}

}  // namespace

void set_order(int value) {
  order = value;
  random_source.seed(static_cast<uint32_t>(value));
}

std::vector<uint32_t> threadgroup_order(uint32_t count) {
  std::vector<uint32_t> groups(count);
  for (uint32_t i = 0; i < count; i++) groups[i] = i;
  arrange(groups.begin(), groups.end());
  return groups;
}

void run_threadgroup() {
  head = tail = 0;
  Thread* all[kMaxThreads];
  for (int i = 0; i < machine->n_threads; i++) {
    Thread* thread = all[i] = &machine->threads[i];
    // Stack tops are staggered, so that the stacks do not compete for the same cache sets.
    prepare_context(thread->context, machine->stacks.bottom(i), machine->stacks.top(i) - i % 61 * 192, thread_main);
    thread->state = State::kReady;
  }
  push_arranged(all, all + machine->n_threads);
  switch_to(launcher, pop());
  machine->current = nullptr;
}

void wait_at(const char* what, MslSite site) {
  Thread* me = machine->current;
  me->state = State::kWaiting;
  me->waits_for = what;
  me->waits_at = site;
  switch_to(me->context, pop());
}

void yield() {
  Thread* me = machine->current;
  if (order < 2 || head == tail || random_source() % 4) return;
  push(me);
  switch_to(me->context, pop());
}

void leave() {
  Thread* me = machine->current;
  me->state = State::kReturned;
  switch_to(me->context, machine->stopped ? nullptr : pop());
  abort();  // nobody switches back to a thread that has returned
}

void stop_everything() {
  machine->stopped = true;
  if (machine->current) leave();
}

void wake(Thread* first, Thread* last) {
  Thread* woken[kMaxThreads];
  Thread** end = woken;
  for (; first != last; ++first)
    if (first->state == State::kWaiting && first != machine->current) {
      first->state = State::kReady;
      *end++ = first;
    }
  push_arranged(woken, end);
}

}  // namespace sim
