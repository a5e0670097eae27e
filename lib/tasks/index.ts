/** The built-in tasks and the parser of their specs. */
import { checkChoice, invalid } from '../errors.js';
import { ArithmeticTask } from './arithmetic.js';
import { InterleaveTask } from './interleave.js';
import { SortTask } from './sort.js';
import type { Task } from './task.js';

export { ArithmeticTask } from './arithmetic.js';
export { InterleaveTask } from './interleave.js';
export { SortTask } from './sort.js';
export type { Problem, Task } from './task.js';

type TaskName = 'sort' | 'interleave' | 'add';

const TASKS: Record<TaskName, { form: string; create: (first: number, second: number) => Task }> = {
  sort: { form: 'sort:LENGTH:SYMBOLS', create: (length, symbols) => new SortTask(length, symbols) },
  interleave: {
    form: 'interleave:LENGTH:SYMBOLS',
    create: (length, symbols) => new InterleaveTask(length, symbols),
  },
  add: { form: 'add:DIGITS:NUMBERS', create: (digits, numbers) => new ArithmeticTask(digits, numbers) },
};

/** The form of every spec that {@link createTask} takes, such as `sort:LENGTH:SYMBOLS`. */
export const taskForms: readonly string[] = Object.values(TASKS).map((task) => task.form);

/**
 * Makes the task that a spec such as `sort:16:10` names.
 *
 * @throws InvalidArgumentError for an unknown task (the known ones are listed) or sizes out of range
 */
export function createTask(spec: string): Task {
  if (typeof spec !== 'string') invalid('task', `one of ${taskForms.join(', ')}`, spec);
  const [name, ...sizes] = spec.split(':');
  const { form, create } = TASKS[checkChoice('task', 'task', name, Object.keys(TASKS) as TaskName[])];
  if (sizes.length !== 2 || !sizes.every((size) => /^\d{1,9}$/.test(size))) {
    invalid('task', `${form} with two whole numbers`, spec);
  }
  return create(Number(sizes[0]), Number(sizes[1]));
}
