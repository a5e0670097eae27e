/** Where tensors live and ops run. This module loads no addon. */
import { checkChoice } from './errors.js';

/** In the order of native/core/registry.h. */
export const devices = ['cpu', 'cuda'] as const;
export type Device = (typeof devices)[number];

const VARIABLE = 'ISOPOLICY_DEVICE';

/** The device that processes of this one start with: what the environment variable ISOPOLICY_DEVICE names, else the CPU. */
export function initialDevice(): Device {
  return checkChoice('device', VARIABLE, process.env[VARIABLE] || 'cpu', devices);
}

/** Sets {@link initialDevice}: for the addon, where it is not loaded yet, and for child processes. */
export function setInitialDevice(device: Device): void {
  process.env[VARIABLE] = device;
}
