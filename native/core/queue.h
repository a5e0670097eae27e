// A queue from one thread to one other, without locks: to find a lock taken would put the JavaScript thread
// to sleep. Unbounded, since that thread must not wait for the native one either. Items lie in blocks, are
// built in place and stay there until they are popped.
#pragma once
#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

namespace isopolicy {

template <class T>
class Queue {
 public:
  Queue() : first_(new Block), last_(first_) {}
  Queue(const Queue&) = delete;
  ~Queue() {
    while (front() != nullptr) pop();
    delete first_;
    delete spare_.load();
  }

  // ---- The thread that pushes ----
  template <class... A>
  void push(A&&... arguments) {
    const uint64_t count = pushed_.load(std::memory_order_relaxed);
    const size_t slot = count % kBlock;
    if (slot == 0 && count > 0) {
      Block* block = spare_.exchange(nullptr);
      if (block == nullptr) block = new Block;
      last_->next = block;
      last_ = block;
    }
    new (last_->at(slot)) T(std::forward<A>(arguments)...);
    pushed_.store(count + 1);
  }

  // ---- The thread that takes ----
  bool empty() const { return popped_ == pushed_.load(); }
  // The oldest item, or null.
  T* front() {
    if (empty()) return nullptr;
    const size_t slot = popped_ % kBlock;
    if (slot == 0 && popped_ > 0 && !entered_) {
      Block* done = std::exchange(first_, first_->next);
      delete spare_.exchange(done);
      entered_ = true;
    }
    return std::launder(reinterpret_cast<T*>(first_->at(slot)));
  }
  void pop() {
    front()->~T();
    popped_++;
    entered_ = false;
  }

 private:
  static constexpr size_t kBlock = 16;
  struct Block {
    void* at(size_t slot) { return bytes + slot * sizeof(T); }
    alignas(T) unsigned char bytes[kBlock * sizeof(T)];
    Block* next = nullptr;  // set before the first item of that block is counted as pushed
  };
  alignas(64) std::atomic<uint64_t> pushed_{0};
  alignas(64) std::atomic<Block*> spare_{nullptr};  // a used block goes back to the thread that pushes
  alignas(64) uint64_t popped_ = 0;
  bool entered_ = false;  // the block of the oldest item is first_ already
  Block* first_;
  alignas(64) Block* last_;
};

}  // namespace isopolicy
