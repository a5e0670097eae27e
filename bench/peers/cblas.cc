// A library with the CBLAS interface, opened by path: cblas LIBRARY. OpenBLAS and BLIS.
#include <dlfcn.h>

#include "driver.h"

using namespace peers;

namespace {

constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;
using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float,
                       float*, int);
using Sbgemm = void (*)(int, int, int, int, int, int, float, const uint16_t*, int, const uint16_t*, int,
                        float, float*, int);

template <typename T, typename F>
Work gemm(const Question& q, F function) {
  const int m = int(q.dims.at(0)), n = int(q.dims.at(1)), k = int(q.dims.at(2));
  auto inputs = std::make_shared<std::vector<Product>>();
  for (int set = 0; set < q.sets; set++) inputs->emplace_back(q, set);
  auto out = std::make_shared<Buffer>(Type::fp32, long(m) * n);
  const auto run = [inputs, out, function, m, n, k](int set) {
    const Product& product = (*inputs)[size_t(set)];
    function(kRowMajor, kNoTranspose, kTranspose, m, n, k, 1, product.x.as<T>(), k, product.weight.as<T>(), k,
             0, out->as<float>(), n);
  };
  run(0);
  inputs->front().check(out->data(), Type::fp32);
  return {run, ""};
}

}  // namespace

int main(int count, char** arguments) {
  void* library = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : nullptr;
  const auto sgemm = library ? reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm")) : nullptr;
  if (!sgemm) {
    std::cerr << "no cblas_sgemm: " << dlerror() << std::endl;
    return 1;
  }
  const auto sbgemm = reinterpret_cast<Sbgemm>(dlsym(library, "cblas_sbgemm"));
  const auto openblas = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_config"));
  const auto blis = reinterpret_cast<const char* (*)()>(dlsym(library, "bli_info_get_version_str"));
  return serve(openblas ? openblas()
               : blis   ? blis()
                        : "unknown version",
               [&](const Question& q) -> Work {
                 if (q.op != "gemm") throw NotOffered("no such op");
                 if (q.type == Type::fp32) return gemm<float>(q, sgemm);
                 if (q.type == Type::bf16 && sbgemm) return gemm<uint16_t>(q, sbgemm);
                 throw NotOffered("no product of this dtype");
               });
}
