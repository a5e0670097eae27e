#include "cuda/checks.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "core/command.h"
#include "cuda/launcher.h"

namespace isopolicy::cuda {

Checks::Checks(cudaStream_t stream) : stream_(stream) {
  void* device = nullptr;
  void* host = nullptr;
  const size_t bytes = kSlots * sizeof(unsigned long long) + sizeof(unsigned);
  expectSuccess(cudaMalloc(&device, bytes), "allocating the checks");
  expectSuccess(cudaMallocHost(&host, sizeof(unsigned)), "allocating the checks");
  deviceSlots_ = static_cast<unsigned long long*>(device);
  deviceAny_ = reinterpret_cast<unsigned*>(deviceSlots_ + kSlots);
  any_ = static_cast<unsigned*>(host);
  renew();
}

Checks::~Checks() {
  cudaFree(deviceSlots_);
  cudaFreeHost(any_);
}

void Checks::renew() {
  expectSuccess(cudaMemsetAsync(deviceSlots_, 0xff, kSlots * sizeof(unsigned long long), stream_),
                "clearing the checks");
  expectSuccess(cudaMemsetAsync(deviceAny_, 0, sizeof(unsigned), stream_), "clearing the checks");
}

int Checks::take() {
  if (kept_ != nullptr) {
    std::lock_guard<std::mutex> lock(mutex_);
    int slot = 0;
    if (released_.empty()) {
      if (lowestKept_ == kLeastKept) throw DeviceError("expected fewer checks in recorded sequences");
      slot = --lowestKept_;
    } else {
      slot = released_.back();
      released_.pop_back();
    }
    kept_->push_back(slot);
    return slot;
  }
  if (used_ == kLeastKept) {
    queueLook();
    expectSuccess(cudaStreamSynchronize(stream_), "waiting for the GPU");
    look();
  }
  return used_++;
}

Check Checks::add(const std::string& message) {
  const int slot = take();
  slots_[size_t(slot)] = {op_, sequence_, added_++, message};
  return {deviceSlots_ + slot, deviceAny_};
}

void Checks::relaunched(const std::vector<int>& kept, uint64_t sequence) {
  for (const int slot : kept) slots_[size_t(slot)].sequence = sequence;
}

void Checks::release(const std::vector<int>& kept) {
  std::lock_guard<std::mutex> lock(mutex_);
  released_.insert(released_.end(), kept.begin(), kept.end());
}

void Checks::queueLook() {
  expectSuccess(cudaMemcpyAsync(any_, deviceAny_, sizeof(unsigned), cudaMemcpyDeviceToHost, stream_),
                "reading the checks");
}

static std::string withNumbers(const std::string& text, uint64_t reported) {
  // As report() of kernel.cuh packs them.
  const auto index = int64_t(reported >> 32);
  const auto value = int32_t(uint32_t(reported));
  std::string told;
  for (size_t at = 0; at < text.size();) {
    const std::string mark = text.substr(at, 2);
    if (mark != "%i" && mark != "%v") {
      told += text[at++];
      continue;
    }
    at += 2;
    int64_t number = mark == "%i" ? index : value;
    const char by = at < text.size() ? text[at] : ' ';
    size_t digits = 0;
    if (by == '/' || by == '%')
      while (at + 1 + digits < text.size() && std::isdigit(text[at + 1 + digits]) != 0) digits++;
    if (digits > 0) {
      const int64_t divisor = std::max<int64_t>(1, std::stoll(text.substr(at + 1, digits)));
      number = by == '/' ? number / divisor : number % divisor;
      at += 1 + digits;
    }
    told += std::to_string(number);
  }
  return told;
}

void Checks::look() {
  if (*any_ == 0) {
    used_ = 0;
    return;
  }
  std::vector<unsigned long long> reported(kSlots);
  expectSuccess(cudaMemcpyAsync(reported.data(), deviceSlots_, kSlots * sizeof(unsigned long long),
                                cudaMemcpyDeviceToHost, stream_),
                "reading the checks");
  expectSuccess(cudaStreamSynchronize(stream_), "waiting for the GPU");
  used_ = 0;
  renew();
  const Slot* first = nullptr;
  unsigned long long what = 0;
  for (int i = 0; i < kSlots; i++) {
    if (reported[size_t(i)] == ~0ull) continue;
    const Slot& slot = slots_[size_t(i)];
    if (first != nullptr && std::pair(first->sequence, first->order) < std::pair(slot.sequence, slot.order))
      continue;
    first = &slot;
    what = reported[size_t(i)];
  }
  if (first == nullptr) return;
  throw CommandFailure(first->sequence,
                       std::string("[") + first->op + "] " + withNumbers(first->message, what));
}

}  // namespace isopolicy::cuda
