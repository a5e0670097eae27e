// Ops that make, fill, copy and re-window memory. Their kernels are the same at every vector level.
#include "ops/memory.h"

#include <cfloat>
#include <cmath>
#include <cstring>

#include "core/random.h"
#include "core/workers.h"
#include "ops/op.h"

namespace isopolicy {

namespace {

template <class T>
void fillWith(T value, void* data, int64_t begin, int64_t end) {
  T* p = static_cast<T*>(data);
  for (int64_t i = begin; i < end; i++) p[i] = value;
}

template <class Body>
void withElement(DType dtype, double value, Body body) {
  switch (dtype) {
    case DType::float32:
      return body(float(value));
    case DType::float16:
      return body(roundTo<Half>(float(value)));
    case DType::bfloat16:
      return body(roundTo<BFloat16>(float(value)));
    case DType::int32:
      return body(int32_t(value));
  }
  return body(roundEmulated(float(value), formatOf(dtype)));
}

void fill(const FillArgs& args, Workers& workers) {
  workers.parallelFor(args.count, 16384, [&](int64_t begin, int64_t end) {
    withElement(args.dtype, args.value, [&](auto value) { fillWith(value, args.data, begin, end); });
  });
}

void copy(const CopyArgs& args, Workers& workers) {
  workers.parallelFor(int64_t(args.bytes), 1 << 16, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<char*>(args.to) + begin, static_cast<const char*>(args.from) + begin,
                size_t(end - begin));
  });
}

void upload(const UploadArgs& args, Workers&) { std::memcpy(args.to, args.from, args.bytes); }

void poison(const PoisonArgs& args, Workers&) { std::memset(args.data, 0xff, args.bytes); }

void randomNormal(const RandomNormalArgs& args, Workers& workers) {
  workers.parallelFor((args.count + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const auto bits = philox(uint32_t(i), uint32_t(i >> 32), 0, args.stream, args.seed, 0);
      const double u = 1.0 - uniform53(bits.word[0], bits.word[1]);  // (0, 1]: the logarithm is finite
      const double angle = 6.283185307179586477 * uniform53(bits.word[2], bits.word[3]);
      const double radius = args.std * std::sqrt(-2.0 * std::log(u));
      const double pair[2] = {args.mean + radius * std::cos(angle), args.mean + radius * std::sin(angle)};
      for (int64_t j = 0; j < 2 && 2 * i + j < args.count; j++)
        withElement(args.dtype, pair[j],
                    [&](auto value) { fillWith(value, args.data, 2 * i + j, 2 * i + j + 1); });
    }
  });
}

void randomUniform(const RandomUniformArgs& args, Workers& workers) {
  workers.parallelFor((args.count + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const auto bits = philox(uint32_t(i), uint32_t(i >> 32), 1, args.stream, args.seed, 0);
      for (int64_t j = 0; j < 2 && 2 * i + j < args.count; j++) {
        const double u = uniform53(bits.word[2 * j], bits.word[2 * j + 1]);
        args.data[2 * i + j] = float(args.bound * (2.0 * u - 1.0));
      }
    }
  });
}

template <class Args>
void addEverywhere(Registry& registry, Kernel<Args> kernel) {
  registry.add<Args>(Family::shared, {kernel, kernel, kernel, kernel, kernel});
}

}  // namespace

void registerMemory(Registry& registry) {
  addEverywhere<FillArgs>(registry, fill);
  addEverywhere<CopyArgs>(registry, copy);
  addEverywhere<UploadArgs>(registry, upload);
  addEverywhere<PoisonArgs>(registry, poison);
  addEverywhere<RandomNormalArgs>(registry, randomNormal);
  addEverywhere<RandomUniformArgs>(registry, randomUniform);
}

// allocate(device, dtype, shape) -> a tensor whose contents are not defined.
void allocateOp(OpCall& call) {
  call.readDevice("device");
  const DType dtype = call.dtype("dtype");
  call.output(dtype, call.shape("shape"));
}

// fill(x, value): sets every element, rounding once to x's dtype.
void fillOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const double value = call.number("value");
  if (x.dtype == DType::int32)
    call.expect(value == std::floor(value) && std::fabs(value) < 2147483648.0, "value to be a 32-bit integer",
                std::to_string(value));
  call.enqueue(Family::shared, FillArgs{x.data(), x.elements(), x.dtype, value}, {&x});
}

// copy(x, out?) -> a copy with memory of its own, or a copy into `out`.
void copyOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const auto into = call.optionalTensor("out");
  if (into) {
    call.expectShape("out", *into, x.shape);
    call.expectDtype("out", *into, x.dtype);
  }
  const Tensor out = into ? *into : call.output(x.dtype, x.shape);
  call.enqueue(Family::shared, CopyArgs{x.data(), out.data(), x.bytes()}, {&x, &out});
}

// view(x, firstElement, shape) -> a window on the same memory, starting at an element of x.
void viewOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const int64_t first = call.integer("offset", 0);
  const Shape shape = call.shape("shape");
  double elements = 1;  // in floating point: a product of five dimensions may pass 2^63
  for (int i = 0; i < shape.rank; i++) elements *= double(shape.dims[i]);
  call.expect(double(first) + elements <= double(x.elements()),
              "shape to fit the " + std::to_string(x.elements()) + " elements of " + x.shape.text(),
              shape.text() + " at element " + std::to_string(first));
  call.outputView(x, first * int64_t(bytesOf(x.dtype)), x.dtype, shape);
}

// randomNormal(dtype, shape, mean, std, seed, stream) -> independent normal values, a pure function of (seed,
// stream).
void randomNormalOp(OpCall& call) {
  const DType dtype = call.floatDtype("dtype");
  const Shape shape = call.shape("shape");
  const double mean = call.number("mean");
  const double std = call.number("std");
  call.expect(std >= 0, "std of at least 0", std::to_string(std));
  const auto seed = uint32_t(call.integer("seed", 0, UINT32_MAX));
  const auto stream = uint32_t(call.integer("stream", 0, UINT32_MAX));
  const Tensor out = call.output(dtype, shape);
  call.enqueue(Family::shared, RandomNormalArgs{out.data(), out.elements(), dtype, mean, std, seed, stream},
               {});
}

// randomUniform(shape, bound, seed, stream) -> independent fp32 values, uniform between -bound and bound, a
// pure function of (seed, stream).
void randomUniformOp(OpCall& call) {
  const Shape shape = call.shape("shape");
  const double bound = call.number("bound");
  call.expect(bound >= 0 && bound <= FLT_MAX, "bound of at least 0 and within the range of fp32",
              std::to_string(bound));
  const auto seed = uint32_t(call.integer("seed", 0, UINT32_MAX));
  const auto stream = uint32_t(call.integer("stream", 0, UINT32_MAX));
  const Tensor out = call.output(DType::float32, shape);
  call.enqueue(Family::shared, RandomUniformArgs{out.as<float>(), out.elements(), bound, seed, stream}, {});
}

}  // namespace isopolicy
