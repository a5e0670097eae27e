/** Log-probs of the same tokens under two policies, ragged as in `PolicyBatch`; the log ratio is to - from. */
export interface RatioBatch {
  readonly offsets: Int32Array;
  readonly mask: Uint8Array;
  /** [tokens] log-probs of the policy that is trained (pi, or pi_old). */
  readonly to: Float64Array;
  /** [tokens] log-probs of the policy that sampled (mu). */
  readonly from: Float64Array;
}
