// Walks a row sixteen elements at a time, the last step taking what is left. Included inside each pass of
// each_isa.h, after simd.h: no guard.

namespace isopolicy::ISA_PASS {

struct WholeVector {
  template <class T>
  ISA_INLINE Vec get(const T* p) const {
    return load(p);
  }
  template <class T>
  ISA_INLINE void put(T* p, Vec x) const {
    store(p, x);
  }
};

// The first n lanes; the rest read as zeros and are not written.
struct PartOfVector {
  int n;
  template <class T>
  ISA_INLINE Vec get(const T* p) const {
    return loadPartial(p, n);
  }
  template <class T>
  ISA_INLINE void put(T* p, Vec x) const {
    storePartial(p, x, n);
  }
};

// step(i, lanes) handles the elements from i on that `lanes` covers: lanes.get(p + i), lanes.put(p + i, x).
template <class Step>
ISA_INLINE void eachVector(int64_t n, Step&& step) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) step(i, WholeVector{});
  if (i < n) step(i, PartOfVector{int(n - i)});
}

// Vectors that a step takes side by side where each needs a long chain of instructions (exp, a division).
inline constexpr int kSide = 4;

template <int N>
struct WholeVectors {
  static constexpr int count = N;
  bool past;  // what is put goes past the caches
  template <class T>
  ISA_INLINE void get(const T* p, Vec* x) const {
    for (int k = 0; k < N; k++) x[k] = load(p + k * kLanes);
  }
  template <class T>
  ISA_INLINE void put(T* p, const Vec* x) const {
    if (past) {
      for (int k = 0; k < N; k++) stream(p + k * kLanes, x[k]);
    } else {
      for (int k = 0; k < N; k++) store(p + k * kLanes, x[k]);
    }
  }
};

struct PartOfVectors {
  static constexpr int count = 1;
  int n;
  template <class T>
  ISA_INLINE void get(const T* p, Vec* x) const {
    x[0] = loadPartial(p, n);
  }
  template <class T>
  ISA_INLINE void put(T* p, const Vec* x) const {
    storePartial(p, x[0], n);
  }
};

// As eachVector with kSide vectors a step, then one: step(i, lanes) reads and writes arrays of lanes.count
// vectors. Where `past` is not null, it is the row that is written, and its whole vectors go past the caches.
template <class T, class Step>
ISA_INLINE void eachVectors(int64_t n, T* past, Step&& step) {
  int64_t i = 0;
  if (past != nullptr) {
    // Such stores need addresses on their own size.
    const int64_t head =
        std::min<int64_t>(n, -(reinterpret_cast<uintptr_t>(past) / sizeof(T)) % (64 / sizeof(T)));
    for (; i + kLanes <= head; i += kLanes) step(i, WholeVectors<1>{false});
    if (i < head) step(i, PartOfVectors{int(head - i)});
    i = head;
  }
  for (; i + kSide * kLanes <= n; i += kSide * kLanes) step(i, WholeVectors<kSide>{past != nullptr});
  for (; i + kLanes <= n; i += kLanes) step(i, WholeVectors<1>{past != nullptr});
  if (i < n) step(i, PartOfVectors{int(n - i)});
}
template <class Step>
ISA_INLINE void eachVectors(int64_t n, Step&& step) {
  eachVectors(n, static_cast<float*>(nullptr), step);
}

// Outputs from this size on go past the caches: whoever reads them next would not find them there anyhow, and
// an ordinary store first reads the line that it overwrites.
inline constexpr int64_t kPastCaches = int64_t(32) << 20;

// What was put past the caches becomes visible to other threads before anything that is written later.
ISA_INLINE void fencePastCaches() {
#if ISA_LEVEL >= 1
  _mm_sfence();
#endif
}

// Asks for what the loop will read in about a kilobyte: processors stop fetching ahead at every 4 KiB.
template <class T>
ISA_INLINE void fetchAhead(const T* p) {
  const char* at = reinterpret_cast<const char*>(p) + 1024;
  for (size_t line = 0; line < kSide * kLanes * sizeof(T); line += 64) __builtin_prefetch(at + line);
}

}  // namespace isopolicy::ISA_PASS
