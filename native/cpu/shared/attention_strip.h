// A strip of keys and values, 128 of them or so, packed for the products of attention. Included once a pass:
// no guard.
#include "cpu/shared/attention_product.h"

namespace isopolicy::ISA_PASS {

struct RowSettings {
  int headDim;
  float scale;
  int chunk;  // 0: all keys in one
  int tile;
};

// Keys that are scored at once: whole tiles, about 128 keys, so that even a single row has enough independent
// sums to fill the pipeline.
inline int stripKeys(const RowSettings& settings) {
  const int keys = settings.tile >= 128 ? settings.tile : 128 / settings.tile * settings.tile;
  return settings.chunk > 0 ? std::min(keys, settings.chunk) : keys;
}

// Up to stripKeys keys: groups of 16 keys side by side, and the rows of the values.
template <class Groups, class Values>
struct KeyStrip {
  Groups keys;
  Values values;
  bool finite;  // the values; only then may a probability of zero stand for a key that a row does not see
};

#if ISA_LEVEL >= 4
// Values for AMX: [plane][keys / 2][stride][2], each tile of keys from a whole step on.
struct SteppedValues {
  BFloat16* base;
  int64_t stride, plane;
  int tileKeys, planes;

  int64_t rowOf(int key) const { return int64_t(key / tileKeys) * roundUp(tileKeys, 32) + key % tileKeys; }
  ValueTiles tile(int begin) const { return {base + rowOf(begin) * stride, stride, plane}; }
  SteppedValues copyOfTile(Scratch& scratch, int begin) const {
    const int64_t size = roundUp(tileKeys, 32) * stride;
    auto* copy = scratch.get<BFloat16>(size * planes);
    for (int p = 0; p < planes; p++)
      std::memcpy(copy + p * size, base + rowOf(begin) * stride + p * plane, size_t(size) * 2);
    return {copy, stride, size, tileKeys, planes};
  }
  // Of the first tile.
  void clear(int from, int to) const {
    for (int p = 0; p < planes; p++)
      for (int key = from; key < to; key++) {
        BFloat16* row = base + p * plane + key / 2 * 2 * stride + key % 2;
        for (int64_t d = 0; d < stride; d++) row[2 * d] = {0};
      }
  }
};
#endif

template <class T>
class PackedStrip {
 public:
  using F = Form<T>;
  using Element = typename F::Element;
#if ISA_LEVEL >= 4
  using Values = std::conditional_t<F::kTiles, SteppedValues, DenseRows<Element>>;
#else
  using Values = DenseRows<Element>;
#endif

  PackedStrip(Scratch& scratch, const RowSettings& settings)
      : headDim_(settings.headDim),
        depth_(roundUp(settings.headDim, F::kStep)),
        stride_(roundUp16(settings.headDim)),
        tile_(settings.tile),
        tileRows_(F::kTiles ? roundUp(settings.tile, 32) : settings.tile) {
    const int strip = stripKeys(settings);
    const int groups = strip / 16;
    const int64_t valueRows = int64_t(strip / tile_) * tileRows_;
    groupPlane_ = int64_t(depth_) * 16;
    valuePlane_ = valueRows * stride_;
    groups_ = scratch.get<const Element*>(groups);
    packed_ = scratch.get<Element>(groups * groupPlane_ * F::kPlanes);
    values_ = scratch.get<Element>(valuePlane_ * F::kPlanes);
  }

  // load(from, n) calls rows or page for each 16 keys of the strip.
  template <class Load>
  KeyStrip<PackedGroups<Element>, Values> fill(int keys, Load&& load) {
    check_.reset();
    for (int from = 0; from < keys; from += 16) load(from, std::min(16, keys - from));
    // A step of AMX takes 32 keys.
    if constexpr (F::kTiles)
      for (int begin = 0; begin < keys; begin += tile_) {
        const int n = std::min(tile_, keys - begin);
        const int absent = roundUp(n, 32) - roundUp(n, 2);
        for (int p = 0; p < F::kPlanes; p++)
          std::memset(valuesAt(begin) + roundUp(n, 2) * stride_ + p * valuePlane_, 0,
                      size_t(absent) * size_t(stride_) * sizeof(Element));
      }
    if constexpr (F::kTiles)
      return {{groups_}, {values_, stride_, valuePlane_, tile_, F::kPlanes}, check_.finite()};
    else
      return {{groups_}, {values_, stride_}, check_.finite()};
  }

  // Keys and values `from` .. `from` + n - 1 of the strip, from rows.
  void rows(int from, int n, const T* keys, const T* values, int64_t stride) {
    Element* group = groupAt(from);
    Element* out = valuesAt(from);
#if ISA_LEVEL >= 3
    if constexpr (F::kPairs) {
      packColumns<T>(keys, stride, n, headDim_, depth_, group, groupPlane_);
      for (int i = 0; i < n; i += 2)
        packRowPair<T>(values + i * stride, i + 1 < n ? values + (i + 1) * stride : nullptr, headDim_,
                       stride_, out + i * stride_, valuePlane_,
                       [&](__m512i x) { check_.template seeBits<T>(x); });
      return;
    }
#endif
    if constexpr (!F::kPairs) {
      widenTransposed(keys, stride, n, headDim_, group);
      for (int i = 0; i < n; i++)
        widenRow(values + i * stride, headDim_, out + i * stride_, [&](Vec x) { check_.see(x); });
    }
  }

  // The same from a page of the cache.
  void page(int from, int n, const T* keys, const T* values) {
    Element* group = groupAt(from);
    Element* out = valuesAt(from);
#if ISA_LEVEL >= 3
    if constexpr (std::is_same_v<T, BFloat16>) {
      const auto see = [&](__m512i x) { check_.template seeBits<T>(x); };
      if (depth_ == headDim_)
        groups_[from / 16] = keys;
      else
        copyPairs(keys, headDim_ * 8, depth_ * 8, group, 2, [](__m512i) {});
      for (int i = 0; i < n; i += 2)
        copyPairs(values + i * headDim_, headDim_, stride_, out + i * stride_, std::min(2, n - i), see);
      return;
    }
    if constexpr (F::kPairs && std::is_same_v<T, Half>) {
      for (int d = 0; d < depth_; d += 2)
        packRowPair<T>(keys + d * 16, keys + (d + 1) * 16, d < headDim_ ? 16 : 0, 16, group + d * 16,
                       groupPlane_, [](__m512i) {});
      for (int i = 0; i < n; i += 2)
        packRowPair<T>(values + i * headDim_, i + 1 < n ? values + (i + 1) * headDim_ : nullptr, headDim_,
                       stride_, out + i * stride_, valuePlane_,
                       [&](__m512i x) { check_.template seeBits<T>(x); });
      return;
    }
#endif
    if constexpr (!F::kPairs) {
      const auto see = [&](Vec x) { check_.see(x); };
      if constexpr (std::is_same_v<T, BFloat16>) {
        for (int d = 0; d < headDim_; d += 2)
          widenPairs(keys + d * 16, 16, group + d * 16, group + (d + 1) * 16, [](Vec) {});
        for (int i = 0; i < n; i += 2)
          widenPairs(values + i * headDim_, headDim_, out + i * stride_,
                     i + 1 < n ? out + (i + 1) * stride_ : nullptr, see);
      } else {
        widenRow(keys, headDim_ * 16, group);
        for (int i = 0; i < n; i++) widenRow(values + i * headDim_, headDim_, out + i * stride_, see);
      }
    }
  }

 private:
  // Tiles begin on whole steps.
  Element* valuesAt(int key) { return values_ + (int64_t(key / tile_) * tileRows_ + key % tile_) * stride_; }
  Element* groupAt(int from) {
    Element* group = packed_ + from / 16 * groupPlane_ * F::kPlanes;
    groups_[from / 16] = group;
    return group;
  }

  const int headDim_, depth_, stride_, tile_, tileRows_;
  int64_t groupPlane_, valuePlane_;
  const Element** groups_;
  Element* packed_;
  Element* values_;
  FiniteCheck check_;
};

}  // namespace isopolicy::ISA_PASS
