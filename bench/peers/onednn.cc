// oneDNN 2: matmul with the weight as stored or in the layout that the primitive asks for, and log-softmax.
#include <oneapi/dnnl/dnnl.hpp>

#include "driver.h"

using namespace peers;
using dnnl::memory;

namespace {

const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
dnnl::stream stream(engine);

memory::data_type dataType(Type type) {
  return type == Type::fp32   ? memory::data_type::f32
         : type == Type::fp16 ? memory::data_type::f16
                              : memory::data_type::bf16;
}

struct Call {
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  void run() {
    primitive.execute(stream, arguments);
    stream.wait();
  }
};

Work gemm(const Question& q, bool packed) {
  const long m = q.dims.at(0), n = q.dims.at(1), k = q.dims.at(2);
  const auto type = dataType(q.type);
  const memory::desc x({m, k}, type, memory::format_tag::ab), y({m, n}, type, memory::format_tag::ab);
  const memory::desc stored({k, n}, type, memory::format_tag::ba), any({k, n}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc how({x, packed ? any : stored, y}, engine);
  auto out = std::make_shared<Buffer>(q.type, m * n);
  auto inputs = std::make_shared<std::vector<Product>>();
  auto calls = std::make_shared<std::vector<Call>>();
  for (int set = 0; set < q.sets; set++) {
    Product& product = inputs->emplace_back(q, set);
    memory weight(stored, engine, product.weight.data());
    if (how.weights_desc() != stored) {
      memory reordered(how.weights_desc(), engine);
      dnnl::reorder(weight, reordered).execute(stream, weight, reordered);
      stream.wait();
      weight = reordered;
    }
    calls->push_back({dnnl::matmul(how),
                      {{DNNL_ARG_SRC, memory(x, engine, product.x.data())},
                       {DNNL_ARG_WEIGHTS, weight},
                       {DNNL_ARG_DST, memory(y, engine, out->data())}}});
  }
  calls->front().run();
  inputs->front().check(out->data(), q.type);
  return {[inputs, calls, out](int set) { (*calls)[size_t(set)].run(); }, how.impl_info_str()};
}

Work logSoftmax(const Question& q, bool backward) {
  const long rows = q.dims.at(0), vocabulary = q.dims.at(1);
  const memory::desc desc({rows, vocabulary}, dataType(q.type), memory::format_tag::ab);
  const dnnl::logsoftmax_forward::primitive_desc forward({dnnl::prop_kind::forward_training, desc, 1},
                                                         engine);
  auto buffers = std::make_shared<std::vector<Buffer>>();
  auto calls = std::make_shared<std::vector<Call>>();
  const auto wrap = [&](Buffer& buffer) { return memory(desc, engine, buffer.data()); };
  const auto made = [&](uint32_t seed) {
    return wrap(buffers->emplace_back(q.type, rows * vocabulary, seed, 3.0f));
  };
  buffers->reserve(size_t(2 * q.sets + 1));
  const memory out = wrap(buffers->emplace_back(q.type, rows * vocabulary));
  for (int set = 0; set < q.sets; set++) {
    const memory x = made(uint32_t(2 * set + 1));
    if (!backward) {
      calls->push_back({dnnl::logsoftmax_forward(forward), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, out}}});
    } else {
      Call{dnnl::logsoftmax_forward(forward), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, x}}}.run();
      const dnnl::logsoftmax_backward::primitive_desc how({desc, desc, 1}, engine, forward);
      calls->push_back(
          {dnnl::logsoftmax_backward(how),
           {{DNNL_ARG_DST, x}, {DNNL_ARG_DIFF_DST, made(uint32_t(2 * set + 2))}, {DNNL_ARG_DIFF_SRC, out}}});
    }
  }
  return {[buffers, calls](int set) { (*calls)[size_t(set)].run(); }, forward.impl_info_str()};
}

}  // namespace

int main() {
  const auto* version = dnnl::version();
  std::ostringstream text;
  text << version->major << '.' << version->minor << '.' << version->patch << ", isa 0x" << std::hex
       << int(dnnl::get_effective_cpu_isa());
  return serve(text.str(), [](const Question& q) -> Work {
    try {
      if (q.op == "gemm" || q.op == "gemmPacked") return gemm(q, q.op == "gemmPacked");
      if (q.op == "logSoftmax" || q.op == "logSoftmaxBackward")
        return logSoftmax(q, q.op == "logSoftmaxBackward");
    } catch (const dnnl::error& error) {
      throw NotOffered(error.what());
    }
    throw NotOffered("no such op");
  });
}
