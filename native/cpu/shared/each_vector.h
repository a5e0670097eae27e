// Walks a row sixteen elements at a time, the last step taking what is left. Included inside each pass of
// each_isa.h, after simd.h: no guard.

namespace isopolicy::ISA_PASS {

// Vectors that a step takes side by side where each needs a long chain of instructions (exp, a division).
inline constexpr int kSide = 4;
inline constexpr int64_t kSideLanes = kSide * kLanes;

// ---- Memory ----

// Outputs from this size on go past the caches: whoever reads them next would not find them there anyhow, and
// an ordinary store first reads the line that it overwrites.
inline constexpr int64_t kPastCaches = int64_t(32) << 20;

// Whether rows that an op writes do: each must begin on 64 bytes for it to pay.
inline bool goesPast(int64_t rows, int64_t width, DType dtype) {
  const int64_t rowBytes = width * int64_t(bytesOf(dtype));
  return rows * rowBytes >= kPastCaches && rowBytes % 64 == 0;
}

// What was put past the caches becomes visible to other threads before anything that is written later.
ISA_INLINE void fencePastCaches() {
#if ISA_LEVEL >= 1
  _mm_sfence();
#endif
}

// Elements of a row up to the first that lies on 64 bytes, which stores past the caches need.
template <class T>
ISA_INLINE int64_t unalignedHead(const T* row, int64_t n) {
  return std::min<int64_t>(n, -(reinterpret_cast<uintptr_t>(row) / sizeof(T)) % (64 / sizeof(T)));
}

// Asks for what a loop of kSideLanes a step will read or write in about a kilobyte. Processors by themselves
// stop fetching ahead at every 4 KiB, and stores to lines that are far away hold up those behind them.
template <class T>
ISA_INLINE void fetchAhead(const T* p) {
  const char* at = reinterpret_cast<const char*>(p) + 1024;
  for (size_t line = 0; line < kSideLanes * sizeof(T); line += 64) __builtin_prefetch(at + line);
}

// ---- A vector a step ----

struct WholeVector {
  bool past = false;  // what is put goes past the caches
  template <class T>
  ISA_INLINE Vec get(const T* p) const {
    return load(p);
  }
  template <class T>
  ISA_INLINE void put(T* p, Vec x) const {
    past ? stream(p, x) : store(p, x);
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
// The rows `ahead` are fetched ahead.
template <class Step, class... T>
ISA_INLINE void eachVector(int64_t n, Step&& step, const T*... ahead) {
  int64_t i = 0;
  for (; i + kSideLanes <= n; i += kSideLanes) {
    (fetchAhead(ahead + i), ...);
    for (int k = 0; k < kSide; k++) step(i + k * kLanes, WholeVector{});
  }
  for (; i + kLanes <= n; i += kLanes) step(i, WholeVector{});
  if (i < n) step(i, PartOfVector{int(n - i)});
}

// The same for the whole vectors of a row that is written past the caches.
template <class Out, class Step, class... T>
ISA_INLINE void eachVectorPast(int64_t n, const Out* row, Step&& step, const T*... ahead) {
  int64_t i = unalignedHead(row, n);
  eachVector(i, step);
  for (; i + kSideLanes <= n; i += kSideLanes) {
    (fetchAhead(ahead + i), ...);
    for (int k = 0; k < kSide; k++) step(i + k * kLanes, WholeVector{true});
  }
  eachVector(n - i, [&](int64_t j, auto lanes) { step(i + j, lanes); });
}

// ---- Some vectors a step ----

template <int N>
struct WholeVectors {
  static constexpr int count = N;
  bool past = false;
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

// The same where every row is of one type and no lane is of another kind than the next: the elements of two
// vectors may then lie in them as is cheapest.
template <int N>
struct PairsOfVectors {
  static constexpr int count = N;
  bool past = false;
  template <class T>
  ISA_INLINE void get(const T* p, Vec* x) const {
    for (int k = 0; k < N; k += 2) loadPair(p + k * kLanes, x[k], x[k + 1]);
  }
  template <class T>
  ISA_INLINE void put(T* p, const Vec* x) const {
    if (past) {
      for (int k = 0; k < N; k += 2) streamPair(p + k * kLanes, x[k], x[k + 1]);
    } else {
      for (int k = 0; k < N; k += 2) storePair(p + k * kLanes, x[k], x[k + 1]);
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
// vectors. `out` is the row that is written: its whole vectors go past the caches, or it is fetched ahead.
template <template <int> class Side = WholeVectors, class T, class Step>
ISA_INLINE void eachVectors(int64_t n, const T* out, bool past, Step&& step) {
  int64_t i = 0;
  if (past) {
    const int64_t head = unalignedHead(out, n);
    for (; i + kLanes <= head; i += kLanes) step(i, WholeVectors<1>{});
    if (i < head) step(i, PartOfVectors{int(head - i)});
    i = head;
  }
  for (; i + kSideLanes <= n; i += kSideLanes) {
    if (!past) fetchAhead(out + i);
    step(i, Side<kSide>{past});
  }
  for (; i + kLanes <= n; i += kLanes) step(i, WholeVectors<1>{past});
  if (i < n) step(i, PartOfVectors{int(n - i)});
}

}  // namespace isopolicy::ISA_PASS
