{
  'targets': [{
    'target_name': 'isopolicy',
    'sources': ['<!@(node scripts/sources.cjs)'],
    'include_dirs': ['native', '<!(node -p "require(\'node-addon-api\').include_dir")'],
    'defines': ['NAPI_VERSION=9', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NAPI_CPP_EXCEPTIONS'],
    'cflags!': ['-fno-exceptions'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
    # Sums keep the order and the roundings that are written: no contraction, no fast math.
    'cflags_cc': ['-std=c++20', '-fexceptions', '-O3', '-ffp-contract=off', '-fvisibility=hidden', '-Wall', '-Wextra',
                  '-Wno-uninitialized', '-Wno-maybe-uninitialized', '-Wno-psabi', '-Wno-cast-function-type'],
    'ldflags': ['-Wl,--exclude-libs,ALL'],
    'xcode_settings': {
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'OTHER_CPLUSPLUSFLAGS': ['-O3', '-ffp-contract=off', '-fvisibility=hidden'],
    },
    'msvs_settings': { 'VCCLCompilerTool': { 'ExceptionHandling': 1, 'AdditionalOptions': ['/std:c++20', '/fp:precise'] } },
  }],
}
