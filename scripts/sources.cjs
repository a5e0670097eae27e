'use strict';
// Prints the native source list for binding.gyp, one path a line: node scripts/sources.cjs
const { core } = require('../native/sources.json');
process.stdout.write(core.join('\n'));
