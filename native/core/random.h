// Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011): a pure function of key and counter,
// so a draw is named by (seed, prompt, sample, position) and does not depend on the order in which draws
// happen.
#pragma once
#include <array>
#include <cstdint>

namespace isopolicy {

inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter[0];
    const uint64_t b = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1],
               uint32_t(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits.
inline double uniform53(uint32_t high, uint32_t low) {
  return double((uint64_t(high) << 21) ^ (uint64_t(low) >> 11)) * (1.0 / 9007199254740992.0);
}

}  // namespace isopolicy
