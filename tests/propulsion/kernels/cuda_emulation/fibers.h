// Blocks of threads as fibers: each runs until it waits for others, and then the next one does.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 64 * 1024;

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "CUDA emulation: %s\n", message);
  std::abort();
}

class Block;
inline Block* block = nullptr;

struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;
};

class Block {
 public:
  Block(unsigned num_threads, void (*entry)())
      : contexts_(num_threads),
        stacks_(std::make_unique<char[]>(num_threads * kStack)),
        is_done_(num_threads),
        warps_((num_threads + kWarp - 1) / kWarp) {
    all_.expected = num_threads;
    for (unsigned thread = 0; thread < num_threads; ++thread) {
      ++warps_[thread / kWarp].barrier.expected;
      getcontext(&contexts_[thread]);
      contexts_[thread].uc_stack = {&stacks_[thread * kStack], 0, kStack};
      contexts_[thread].uc_link = &scheduler_;
      makecontext(&contexts_[thread], entry, 0);
    }
  }

  // A warp runs until all its threads wait for other warps, so that one which lacks a barrier gets as
  // far ahead as it can. Every other block takes its warps in reverse, to put others ahead.
  void run(bool in_reverse) {
    const unsigned num_warps = static_cast<unsigned>(warps_.size());
    while (num_done_ < contexts_.size()) {
      const unsigned before = progress_;
      for (unsigned i = 0; i < num_warps; ++i) run_warp(in_reverse ? num_warps - 1 - i : i);
      if (progress_ == before) fail("the threads of a block wait for each other for ever");
    }
  }

  void synchronise() { wait(all_); }

  float exchange(unsigned mask, float value, int lane_mask) {
    if (mask != 0xffffffffu) fail("only whole warps may shuffle");
    Warp& warp = warps_[thread_ / kWarp];
    const unsigned lane = thread_ % kWarp;
    warp.values[lane] = value;
    wait(warp.barrier);
    const float other = warp.values[lane ^ static_cast<unsigned>(lane_mask)];
    wait(warp.barrier);
    return other;
  }

 private:
  struct Warp {
    Barrier barrier;
    float values[kWarp] = {};
  };

  void run_warp(unsigned warp) {
    const unsigned end = std::min((warp + 1) * kWarp, static_cast<unsigned>(contexts_.size()));
    for (unsigned before = progress_ - 1; before != progress_;) {
      before = progress_;
      for (unsigned thread = warp * kWarp; thread < end; ++thread) {
        if (!is_done_[thread]) resume(thread);
      }
    }
  }

  void resume(unsigned thread) {
    thread_ = thread;
    threadIdx = dim3(thread);
    has_finished_ = true;
    swapcontext(&scheduler_, &contexts_[thread]);
    if (!has_finished_) return;
    is_done_[thread] = true;
    ++num_done_;
    leave(all_);
    leave(warps_[thread / kWarp].barrier);
  }

  void wait(Barrier& barrier) {
    const unsigned thread = thread_, generation = barrier.generation;
    ++barrier.arrived;
    release_if_complete(barrier);
    while (barrier.generation == generation) {
      has_finished_ = false;
      swapcontext(&contexts_[thread], &scheduler_);
    }
  }

  void leave(Barrier& barrier) {
    ++progress_;
    --barrier.expected;
    release_if_complete(barrier);
  }

  void release_if_complete(Barrier& barrier) {
    if (barrier.arrived == 0 || barrier.arrived < barrier.expected) return;
    barrier.arrived = 0;
    ++barrier.generation;
    ++progress_;
  }

  ucontext_t scheduler_;
  std::vector<ucontext_t> contexts_;
  std::unique_ptr<char[]> stacks_;
  std::vector<bool> is_done_;
  std::vector<Warp> warps_;
  Barrier all_;
  unsigned thread_ = 0, progress_ = 0, num_done_ = 0;
  bool has_finished_ = false;
};

template <typename Run>
void run_grid(dim3 grid, unsigned num_threads, const Run& run) {
  static const Run* current;
  current = &run;
  gridDim = grid;
  blockDim = dim3(num_threads);
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y);
      Block one(num_threads, [] { (*current)(); });
      block = &one;
      one.run((x + y) % 2 == 1);
    }
  }
  block = nullptr;
}

}  // namespace emulation
