/** Options that check their value as they are parsed, before the addon is loaded. */
import { Option } from 'commander';
import { devices } from '../device.js';
import { checkChoice, checkInteger, checkNumber, InvalidArgumentError, invalid } from '../errors.js';
import { checkFloatDtype } from '../tensor/dtype.js';

/** A whole number of at least `min`. */
export function integerOption(flags: string, description: string, min: number, max?: number): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => checkInteger('cli', option.long!, toNumber(text), min, max));
}

/** A finite number between `min` and `max`. */
export function numberOption(flags: string, description: string, min: number, max?: number): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => checkNumber('cli', option.long!, toNumber(text), min, max));
}

/** One of a few words; `otherwise` is the default that help names. */
export function choiceOption(
  flags: string,
  description: string,
  choices: readonly string[],
  otherwise?: string,
): Option {
  const note = otherwise === undefined ? '' : `; default: ${otherwise}`;
  const option = new Option(flags, `${description} (${choices.join(', ')}${note})`);
  return option.argParser((text) => checkChoice('cli', option.long!, text, choices));
}

/** Where to compute. */
export function deviceOption(): Option {
  return choiceOption('--device <device>', 'where to compute', devices, 'cpu, or ISOPOLICY_DEVICE');
}

/** Text that `check` accepts; what it throws is put down to the option. */
export function checkedOption(flags: string, description: string, check: (text: string) => unknown): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => {
    try {
      check(text);
    } catch (cause) {
      if (!(cause instanceof InvalidArgumentError)) throw cause;
      throw new InvalidArgumentError(`[cli] ${option.long}: ${cause.message}`, { cause });
    }
    return text;
  });
}

/** A float type; an alias becomes its proper name. */
export function precisionOption(flags: string, description: string): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => checkFloatDtype('cli', option.long!, text));
}

/** A path; an empty one is most likely a shell variable that is not set. */
export function pathOption(flags: string, description: string): Option {
  const option = new Option(flags, description);
  return option.argParser((text) =>
    text === '' ? invalid('cli', `${option.long} to be a path`, text) : text,
  );
}

/** Texts, one each time that the option is given. */
export function textsOption(flags: string, description: string): Option {
  const option = new Option(flags, description);
  return option.argParser((text, before: readonly string[] = []) =>
    text === '' ? invalid('cli', `${option.long} to be text`, text) : [...before, text],
  );
}

/** Values between commas, each of some length. */
export function listOption(flags: string, description: string): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => {
    const values = text.split(',').map((value) => value.trim());
    if (values.includes('')) invalid('cli', `${option.long} to be values between commas`, text);
    return values;
  });
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** A number of bytes, as 5GB or 500 MiB; at least one. */
export function bytesOption(flags: string, description: string): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => {
    const [, digits, unit = ''] = /^([\d.]+)\s*([a-z]*)$/i.exec(text) ?? [];
    const bytes = Math.floor(Number(digits) * (UNITS[unit.toUpperCase()] ?? Number.NaN));
    if (!(bytes >= 1 && Number.isSafeInteger(bytes))) {
      invalid('cli', `${option.long} to be a number of bytes (5GB, 500MiB)`, text);
    }
    return bytes;
  });
}

/** The number that all of `text` is; the text itself where it is none, so that messages can show it. */
function toNumber(text: string): unknown {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** `clipHigh=0.28` or `importance.high=5`, gathered into one object; a value that is no JSON is text. */
export function parameterOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text, before: Record<string, unknown> = {}) => {
    const match = /^([A-Za-z]+)(?:\.([A-Za-z]+))?=(.+)$/.exec(text);
    if (match === null) invalid('cli', '--set to be name=value or name.part=value', text);
    const [, name, part, value] = match as unknown as [string, string, string | undefined, string];
    const parsed = parseValue(value);
    const inner = before[name];
    const outer = typeof inner === 'object' && inner !== null ? inner : {};
    return { ...before, [name]: part === undefined ? parsed : { ...outer, [part]: parsed } };
  });
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
