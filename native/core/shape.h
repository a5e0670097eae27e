// The shape of a dense, row-major tensor of at most five dimensions.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/error.h"

namespace isopolicy {

struct Shape {
  static constexpr int kMaxRank = 5;
  int rank = 0;
  int64_t dims[kMaxRank] = {0, 0, 0, 0, 0};

  Shape() = default;
  Shape(std::initializer_list<int64_t> list) {
    if (list.size() > size_t(kMaxRank)) throw InvalidArgument("[shape] expected at most 5 dimensions");
    for (int64_t d : list) dims[rank++] = d;
  }

  int64_t operator[](int i) const { return dims[i < 0 ? rank + i : i]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
  }
  // Elements of all dimensions but the last: the number of rows of the matrix that row kernels see.
  int64_t rows() const { return rank == 0 ? 1 : (dims[rank - 1] == 0 ? 0 : elements() / dims[rank - 1]); }
  int64_t last() const { return rank == 0 ? 1 : dims[rank - 1]; }

  bool operator==(const Shape& other) const {
    if (rank != other.rank) return false;
    for (int i = 0; i < rank; i++)
      if (dims[i] != other.dims[i]) return false;
    return true;
  }
  bool operator!=(const Shape& other) const { return !(*this == other); }

  std::string text() const {
    std::string s = "[";
    for (int i = 0; i < rank; i++) s += (i ? ", " : "") + std::to_string(dims[i]);
    return s + "]";
  }
};

}  // namespace isopolicy
