// ggml through prebuilt libraries, opened by path: ggml FOLDER [CEILING]. Of the builds in the folder the one
// that gives itself the highest score on this processor is taken, as ggml's own loader does; CEILING (avx2,
// avx512, avx512bf16) leaves out those made for more. Only C functions of the public headers are used, and
// declared here.
//
// Activations are fp32 in ggml: it rounds them to the dtype of the weights within the product.
#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

#include "driver.h"

using namespace peers;

namespace {

struct InitParams {
  size_t bytes;
  void* buffer;
  bool noAlloc;
};

void* base = nullptr;
void* cpu = nullptr;

template <typename F>
F symbol(const char* name) {
  void* found = dlsym(cpu, name);
  if (!found) found = dlsym(base, name);
  if (!found) throw NotOffered(std::string("this ggml has no ") + name);
  return reinterpret_cast<F>(found);
}

int typeOf(Type type) { return type == Type::fp32 ? 0 : type == Type::fp16 ? 1 : 30; }

// A graph of tensors with memory of its own.
class Graph {
 public:
  explicit Graph(void* backend)
      : backend_(backend),
        context_(symbol<void* (*)(InitParams)>("ggml_init")({size_t(1) << 20, nullptr, true})) {}
  Graph(const Graph&) = delete;
  ~Graph() {
    if (buffer_) symbol<void (*)(void*)>("ggml_backend_buffer_free")(buffer_);
    symbol<void (*)(void*)>("ggml_free")(context_);
  }
  // Dimensions as ggml has them, the innermost first.
  void* tensor(Type type, long a, long b, long c = 1, long d = 1) {
    return symbol<void* (*)(void*, int, int64_t, int64_t, int64_t, int64_t)>("ggml_new_tensor_4d")(
        context_, typeOf(type), a, b, c, d);
  }
  void* context() const { return context_; }
  void finish(void* result) {
    graph_ = symbol<void* (*)(void*)>("ggml_new_graph")(context_);
    symbol<void (*)(void*, void*)>("ggml_build_forward_expand")(graph_, result);
    buffer_ = symbol<void* (*)(void*, void*)>("ggml_backend_alloc_ctx_tensors")(context_, backend_);
    if (!buffer_) throw std::bad_alloc();
    compute_ = symbol<int (*)(void*, void*)>("ggml_backend_graph_compute");
  }
  static void* data(void* tensor) { return symbol<void* (*)(void*)>("ggml_get_data")(tensor); }
  void run() const {
    if (compute_(backend_, graph_) != 0) throw std::runtime_error("ggml failed");
  }

 private:
  void* backend_;
  void* context_;
  void* graph_ = nullptr;
  void* buffer_ = nullptr;
  int (*compute_)(void*, void*) = nullptr;
};

using Graphs = std::shared_ptr<std::vector<std::unique_ptr<Graph>>>;

Work workOf(const Graphs& graphs) {
  return {[graphs](int set) { (*graphs)[size_t(set)]->run(); }, ""};
}

Work gemm(const Question& q, void* backend) {
  const auto multiply = symbol<void* (*)(void*, void*, void*)>("ggml_mul_mat");
  const auto graphs = std::make_shared<std::vector<std::unique_ptr<Graph>>>();
  for (int set = 0; set < q.sets; set++) {
    const Product product(q, set);
    Graph& graph = *graphs->emplace_back(std::make_unique<Graph>(backend));
    void* weight = graph.tensor(q.type, product.k, product.n);
    void* x = graph.tensor(Type::fp32, product.k, product.m);
    void* y = multiply(graph.context(), weight, x);
    graph.finish(y);
    std::memcpy(Graph::data(weight), product.weight.data(), size_t(product.n * product.k) * sizeOf(q.type));
    for (long i = 0; i < product.m * product.k; i++) put(Graph::data(x), Type::fp32, i, product.x.at(i));
    if (set > 0) continue;
    graph.run();
    product.check(Graph::data(y), Type::fp32);
  }
  return workOf(graphs);
}

// Dimensions: sequences, heads, queries, keys, headDim. The fused kernel, causal where there is a query for
// each key.
Work attention(const Question& q, void* backend) {
  const long sequences = q.dims.at(0), heads = q.dims.at(1), queries = q.dims.at(2), keys = q.dims.at(3);
  const long depth = q.dims.at(4);
  const auto fused =
      symbol<void* (*)(void*, void*, void*, void*, void*, float, float, float)>("ggml_flash_attn_ext");
  const auto graphs = std::make_shared<std::vector<std::unique_ptr<Graph>>>();
  for (int set = 0; set < q.sets; set++) {
    Graph& graph = *graphs->emplace_back(std::make_unique<Graph>(backend));
    void* query = graph.tensor(Type::fp32, depth, queries, heads, sequences);
    void* key = graph.tensor(q.type, depth, keys, heads, sequences);
    void* value = graph.tensor(q.type, depth, keys, heads, sequences);
    void* mask = graph.tensor(Type::fp16, keys, std::max(queries, 64L));
    graph.finish(fused(graph.context(), query, key, value, mask, 1 / std::sqrt(float(depth)), 0, 0));
    fill(Graph::data(query), Type::fp32, depth * queries * heads * sequences, uint32_t(3 * set + 1));
    fill(Graph::data(key), q.type, depth * keys * heads * sequences, uint32_t(3 * set + 2));
    fill(Graph::data(value), q.type, depth * keys * heads * sequences, uint32_t(3 * set + 3));
    for (long row = 0; row < std::max(queries, 64L); row++)
      for (long column = 0; column < keys; column++)
        put(Graph::data(mask), Type::fp16, row * keys + column,
            queries == keys && column > row ? -INFINITY : 0);
  }
  return workOf(graphs);
}

// The build for this processor that scores highest, of those the ceiling allows.
std::string choose(const std::string& folder, const std::string& ceiling) {
  std::vector<std::string> beyond;
  if (!ceiling.empty()) beyond = {"sapphirerapids"};
  if (ceiling == "avx512" || ceiling == "avx2") beyond.insert(beyond.end(), {"zen4", "cooperlake"});
  if (ceiling == "avx2") beyond.insert(beyond.end(), {"icelake", "cascadelake", "cannonlake", "skylakex"});
  std::string best;
  int bestScore = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().string(), name = entry.path().stem().string();
    if (name.rfind("libggml-cpu", 0) != 0) continue;
    if (std::any_of(beyond.begin(), beyond.end(), [&](const auto& b) { return name.find(b) != name.npos; }))
      continue;
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) continue;
    const auto score = reinterpret_cast<int (*)()>(dlsym(library, "ggml_backend_score"));
    const int value = score ? score() : 1;
    if (value > bestScore) {
      bestScore = value;
      best = file;
    }
    dlclose(library);
  }
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  const std::string folder = arguments[1];
  base = dlopen((folder + "/libggml-base.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  const std::string file = base ? choose(folder, count > 2 ? arguments[2] : "") : "";
  cpu = file.empty() ? nullptr : dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!cpu) {
    std::cerr << "no ggml that this processor can run in " << folder << std::endl;
    return 1;
  }
  void* backend = symbol<void* (*)()>("ggml_backend_cpu_init")();
  const char* threads = std::getenv("OMP_NUM_THREADS");
  symbol<void (*)(void*, int)>("ggml_backend_cpu_set_n_threads")(backend, threads ? std::atoi(threads) : 1);
  const std::string version = symbol<const char* (*)()>("ggml_version")();
  return serve(version + ", " + std::filesystem::path(file).stem().string(), [&](const Question& q) -> Work {
    if (q.op == "gemm") return gemm(q, backend);
    if (q.op == "attention" || q.op == "decodeAttention") return attention(q, backend);
    throw NotOffered("no such op");
  });
}
