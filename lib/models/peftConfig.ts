/**
 * The `adapter_config.json` of the PEFT library, read and written. Its adapters can do more than those here: whatever asks
 * for it is refused by name, so that none is computed as something else.
 */
import { attempt, checkChoice, checkInteger, checkNumber, invalid, throwTogether } from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import { type LoraConfig, loraTargets } from '../nn/lora.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** Fields that are read here, or that do not change what a stored adapter computes. */
const known: readonly string[] = [
  'peft_type',
  'task_type',
  'auto_mapping',
  'base_model_name_or_path',
  'revision',
  'inference_mode',
  'peft_version',
  'r',
  'lora_alpha',
  'lora_dropout',
  'target_modules',
  'use_rslora',
  'bias',
  'init_lora_weights',
  // Read by PEFT beside fields that are refused alone.
  'qalora_group_size',
  // How an adapter was begun.
  'eva_config',
  'megatron_core',
];

/** Ways to begin an adapter that leave the base weights as they are; others are adapters of changed weights. */
const plainBeginnings: readonly unknown[] = [true, false, null, 'gaussian', 'eva', 'orthogonal'];

/**
 * Checks an adapter_config.json and says what adapter it describes.
 *
 * @param where names the file in errors
 * @throws InvalidArgumentError that lists everything that is wrong or not supported
 */
export function parsePeftConfig(source: JsonObject, where = 'adapter_config.json'): LoraConfig {
  const errors: unknown[] = [];
  const expect = (holds: boolean, what: string, found: unknown) =>
    attempt(errors, () => holds || invalid(where, what, found));
  const { peft_type: type, task_type: task = null, bias = 'none', init_lora_weights: begun = true } = source;
  expect(type === 'LORA', 'peft_type to be LORA', type);
  expect(task === null || task === 'CAUSAL_LM', 'task_type to be CAUSAL_LM', task);
  expect(bias === 'none', 'bias to be none (trained biases are not supported)', bias);
  expect(
    plainBeginnings.includes(begun),
    'init_lora_weights that leaves the base weights as they are',
    begun,
  );
  for (const [name, value] of Object.entries(source)) {
    expect(known.includes(name) || isOff(value), `no ${name} (it is not supported)`, value);
  }
  const rank = attempt(errors, () => checkInteger(where, 'r', source.r, 1));
  const alpha = attempt(errors, () => checkNumber(where, 'lora_alpha', source.lora_alpha, 0));
  const dropout = attempt(errors, () => checkNumber(where, 'lora_dropout', source.lora_dropout ?? 0, 0, 1));
  const { use_rslora: useRslora = false } = source;
  expect(typeof useRslora === 'boolean', 'use_rslora to be true or false', useRslora);
  const targets = attempt(errors, () => readTargets(source.target_modules, where));
  throwTogether(where, errors);
  return {
    rank: rank!,
    alpha: alpha!,
    dropout: dropout!,
    useRslora: useRslora as boolean,
    ...(targets && { targets }),
  };
}

/** Whether a field says no more than if it were missing. */
function isOff(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (isObject(value)) return Object.keys(value).length === 0;
  return value === null || value === false || value === '';
}

/**
 * The projections that are listed, by name or by whole paths; null for all that the model has. Paths of some layers alone
 * are told by the tensors, which then are not there for the others.
 */
function readTargets(modules: unknown, where: string): LoraConfig['targets'] | null {
  if (modules === 'all-linear') return null;
  if (!Array.isArray(modules) || modules.length === 0) {
    invalid(where, `target_modules to list some of ${loraTargets.join(', ')}`, modules);
  }
  const names = modules.map((path) =>
    typeof path === 'string' ? path.slice(path.lastIndexOf('.') + 1) : path,
  );
  const targets = names.map((name) => checkChoice(where, 'each of target_modules', name, loraTargets));
  return [...new Set(targets)];
}

/** The adapter_config.json of an adapter; `baseModel` is the name or folder of the model it is of. */
export function composePeftConfig(config: Required<LoraConfig>, baseModel: string | null): JsonObject {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: baseModel,
    inference_mode: true,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    use_rslora: config.useRslora,
    target_modules: config.targets,
    bias: 'none',
    fan_in_fan_out: false,
    init_lora_weights: true,
    modules_to_save: null,
    rank_pattern: {},
    alpha_pattern: {},
    use_dora: false,
  };
}
