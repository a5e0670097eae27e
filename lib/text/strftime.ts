import { invalid } from '../errors.js';

const MONTHS = 'January February March April May June July August September October November December'.split(
  ' ',
);
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/**
 * A local time in the format of C's strftime, in English: the part of it that chat templates write dates with.
 *
 * @throws InvalidArgumentError for a letter that is not known
 */
export function strftime(time: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const month = MONTHS[time.getMonth()]!;
  const day = DAYS[time.getDay()]!;
  const hour = time.getHours();
  return format.replace(/%(-?)(.?)/gsu, (found, bare: string, letter: string) => {
    const number = (value: number) => (bare === '' ? two(value) : String(value));
    switch (letter) {
      case 'Y':
        return String(time.getFullYear());
      case 'y':
        return number(time.getFullYear() % 100);
      case 'm':
        return number(time.getMonth() + 1);
      case 'd':
        return number(time.getDate());
      case 'H':
        return number(hour);
      case 'I':
        return number(hour % 12 || 12);
      case 'M':
        return number(time.getMinutes());
      case 'S':
        return number(time.getSeconds());
      case 'p':
        return hour < 12 ? 'AM' : 'PM';
      case 'B':
        return month;
      case 'b':
        return month.slice(0, 3);
      case 'A':
        return day;
      case 'a':
        return day.slice(0, 3);
      case '%':
        return '%';
      default:
        return invalid('strftime', 'one of %Y %y %m %d %H %I %M %S %p %B %b %A %a %%', found);
    }
  });
}
