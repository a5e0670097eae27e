'use strict';
// What binding.gyp asks of the one source list: node scripts/sources.cjs [core|flags]
// `core` (the default) prints the C++ sources, `flags` the compiler flags, one a line.
const lists = require('../native/sources.json');

const wanted = process.argv[2] ?? 'core';
const lines = [...lists[wanted]];
if (wanted === 'flags' && process.env.ISOPOLICY_WERROR === '1') lines.push('-Werror');
process.stdout.write(lines.join('\n'));
