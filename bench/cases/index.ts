import type { GroupName } from '../arguments.js';
import type { BenchCase, CaseSelection } from '../case.js';
import { attentionCases } from './attention.js';
import { callCases } from './calls.js';
import { elementwiseCases } from './elementwise.js';
import { engineCases } from './engine.js';
import { gemmCases } from './gemm.js';
import { groupedLinearCases } from './groupedLinear.js';
import { linearLogprobCases } from './linearLogprob.js';
import { logSoftmaxCases } from './logSoftmax.js';

/** The cases of each group. */
export const groups: Readonly<Record<GroupName, (selection: CaseSelection) => BenchCase[]>> = {
  gemm: (selection) => [...gemmCases(selection), ...groupedLinearCases(selection)],
  attention: attentionCases,
  'log-softmax': logSoftmaxCases,
  'linear-logprob': linearLogprobCases,
  elementwise: elementwiseCases,
  calls: callCases,
  engine: engineCases,
};
