import { currentDevice } from '../../lib/runtime.js';
import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';

/** The reason why a test of an emulated format can't run, or false: they are computed on the CPU alone. */
export const noEmulated = currentDevice() === 'cuda' ? 'emulated formats are computed on the CPU' : false;

/** Those of the dtypes that the device has. */
export function onDevice(...dtypes: readonly FloatDType[]): readonly FloatDType[] {
  return dtypes.filter((dtype) => noEmulated === false || (floatDtypes as readonly string[]).includes(dtype));
}
