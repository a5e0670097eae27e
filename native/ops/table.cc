// Every op by name. lib/native.ts reads the names through the binding.
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/cast.h"
#include "ops/columns.h"
#include "ops/combine_experts.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/grad_stats.h"
#include "ops/group_by_expert.h"
#include "ops/grouped_linear.h"
#include "ops/linear_logprob.h"
#include "ops/log_softmax.h"
#include "ops/memory.h"
#include "ops/op.h"
#include "ops/pack_weight.h"
#include "ops/peak.h"
#include "ops/reduce.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/route.h"
#include "ops/sample.h"
#include "ops/swiglu.h"

namespace isopolicy {

const Op kOps[] = {
    {"allocate", allocateOp},
    {"fill", fillOp},
    {"copy", copyOp},
    {"view", viewOp},
    {"randomNormal", randomNormalOp},
    {"randomUniform", randomUniformOp},
    {"cast", castOp},
    {"embedding", embeddingOp},
    {"gatherRows", gatherRowsOp},
    {"embeddingBackward", embeddingBackwardOp},
    {"scatterRows", scatterRowsOp},
    {"reduce", reduceOp},
    {"columnSum", columnSumOp},
    {"gradStats", gradStatsOp},
    {"peak", peakOp},
    {"adamw", adamwOp},
    {"add", addOp},
    {"multiply", multiplyOp},
    {"scale", scaleOp},
    {"accumulate", accumulateOp},
    {"scaleColumns", scaleColumnsOp},
    {"addToColumns", addToColumnsOp},
    {"rmsNorm", rmsNormOp},
    {"addRmsNorm", addRmsNormOp},
    {"rmsNormBackward", rmsNormBackwardOp},
    {"addRmsNormBackward", addRmsNormBackwardOp},
    {"rope", ropeOp},
    {"ropeBackward", ropeBackwardOp},
    {"swiglu", swigluOp},
    {"swigluBackward", swigluBackwardOp},
    {"gemm", gemmOp},
    {"packWeight", packWeightOp},
    {"linear", linearOp},
    {"linearInputGradient", linearInputGradientOp},
    {"linearWeightGradient", linearWeightGradientOp},
    {"logSoftmax", logSoftmaxOp},
    {"chosenLogprobs", chosenLogprobsOp},
    {"logSoftmaxBackward", logSoftmaxBackwardOp},
    {"linearLogprob", linearLogprobOp},
    {"linearLogprobBackward", linearLogprobBackwardOp},
    {"attention", attentionOp},
    {"attentionBackward", attentionBackwardOp},
    {"writeKvCache", writeKvCacheOp},
    {"pagedAttention", pagedAttentionOp},
    {"sample", sampleOp},
    {"route", routeOp},
    {"routerWeights", routerWeightsOp},
    {"routerWeightsBackward", routerWeightsBackwardOp},
    {"routerLoad", routerLoadOp},
    {"groupByExpert", groupByExpertOp},
    {"groupedLinear", groupedLinearOp},
    {"groupedLinearInputGradient", groupedLinearInputGradientOp},
    {"groupedLinearWeightGradient", groupedLinearWeightGradientOp},
    {"combineExperts", combineExpertsOp},
    {"combineExpertsBackward", combineExpertsBackwardOp},
};
const int kOpCount = int(sizeof(kOps) / sizeof(kOps[0]));

}  // namespace isopolicy
