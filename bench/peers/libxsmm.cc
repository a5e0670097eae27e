// libxsmm 1: batch-reduce kernels made at run time under the plain outer loop that they are meant for.
// Weights are packed once into blocks of 64 columns (of bf16: in pairs along k), activations are read in
// place.
#include <libxsmm.h>
#include <omp.h>

#include "driver.h"

using namespace peers;

namespace {

constexpr long kColumns = 64;

// [n / 64][k / depth][depth / pair][64][pair]
Buffer pack(const Product& product, Type type, long depth) {
  const long pair = type == Type::bf16 ? 2 : 1;
  Buffer packed(type, product.n * product.k);
  for (long n = 0; n < product.n; n++)
    for (long k = 0; k < product.k; k++) {
      const long block = (n / kColumns * (product.k / depth) + k / depth) * kColumns * depth;
      const long within = (k % depth / pair * kColumns + n % kColumns) * pair + k % pair;
      if (type == Type::fp32)
        packed.as<float>()[block + within] = product.weight.as<float>()[n * product.k + k];
      else
        packed.as<uint16_t>()[block + within] = product.weight.as<uint16_t>()[n * product.k + k];
    }
  return packed;
}

Work gemm(const Question& q) {
  if (q.type == Type::fp16) throw NotOffered("no product of this dtype");
  const bool bf16 = q.type == Type::bf16;
  const long m = q.dims.at(0), n = q.dims.at(1), k = q.dims.at(2);
  const long size = long(sizeOf(q.type));
  const long rows = std::min(m, 64L);
  long depth = std::min(k, bf16 ? 512L : 256L);
  while (depth > 1 && k % depth != 0) depth /= 2;
  if (n % kColumns != 0 || m % rows != 0 || depth < 32) throw NotOffered("shape with a rest");

  const int lda = int(kColumns), ldb = int(k), ldc = int(n);
  const float alpha = 1, beta = 0;
  const int flags = LIBXSMM_GEMM_FLAG_BETA_0 | (bf16 ? LIBXSMM_GEMM_FLAG_VNNI_A : 0),
            prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
  const int strideW = int(kColumns * depth * size), strideX = int(depth * size);
  const int bn = int(kColumns), bm = int(rows), bk = int(depth);
  libxsmm_smmfunction_reducebatch_strd wide = nullptr;
  libxsmm_bsmmfunction_reducebatch_strd half = nullptr;
  if (bf16)
    half = libxsmm_bsmmdispatch_reducebatch_strd(bn, bm, bk, strideW, strideX, &lda, &ldb, &ldc, &alpha,
                                                 &beta, &flags, &prefetch);
  else
    wide = libxsmm_smmdispatch_reducebatch_strd(bn, bm, bk, strideW, strideX, &lda, &ldb, &ldc, &alpha, &beta,
                                                &flags, &prefetch);
  if (!half && !wide) throw NotOffered("no kernel for this processor");

  auto inputs = std::make_shared<std::vector<Product>>();
  auto packed = std::make_shared<std::vector<Buffer>>();
  for (int set = 0; set < q.sets; set++) packed->push_back(pack(inputs->emplace_back(q, set), q.type, depth));
  auto out = std::make_shared<Buffer>(Type::fp32, m * n);
  const auto run = [=](int set) {
    const char* x = (*inputs)[size_t(set)].x.as<char>();
    const char* weight = (*packed)[size_t(set)].as<char>();
    const long down = m / rows, jobs = n / kColumns * down;
#pragma omp parallel for schedule(static)
    for (long job = 0; job < jobs; job++) {
      const long column = job / down, row = job % down;
      unsigned long long blocks = static_cast<unsigned long long>(k / depth);
      const char* w = weight + column * kColumns * k * size;
      const char* a = x + row * rows * k * size;
      float* y = out->as<float>() + row * rows * n + column * kColumns;
      if (half)
        half(reinterpret_cast<const libxsmm_bfloat16*>(w), reinterpret_cast<const libxsmm_bfloat16*>(a), y,
             &blocks);
      else
        wide(reinterpret_cast<const float*>(w), reinterpret_cast<const float*>(a), y, &blocks);
    }
  };
  run(0);
  inputs->front().check(out->data(), Type::fp32);
  return {run, ""};
}

}  // namespace

int main() {
  libxsmm_init();
  return serve(std::string(LIBXSMM_VERSION) + ", target " + libxsmm_get_target_arch(),
               [](const Question& q) -> Work {
                 if (q.op == "gemmPacked") return gemm(q);
                 throw NotOffered("no such op");
               });
}
