// What picking rows by number and its gradient share.
#pragma once
#include <string>

#include "cuda/launcher.h"

namespace isopolicy::cuda {

// The check that row numbers are from 0 to rows - 1, with the message of checkIds.
inline Check idCheck(Launcher& gpu, int64_t rows, bool vocabulary) {
  const std::string number = std::to_string(rows);
  return gpu.check(std::string(vocabulary ? "id" : "index") + " %v at position %i is outside the " +
                   (vocabulary ? "vocabulary of " + number : number + " rows"));
}

}  // namespace isopolicy::cuda
