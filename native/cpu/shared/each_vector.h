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

}  // namespace isopolicy::ISA_PASS
