# The CPU build (npm install without CUDA). CMakeLists.txt builds the same addon: sources and compiler flags of
# both come from native/sources.json.
{
  'targets': [{
    'target_name': 'isopolicy',
    'sources': ['<!@(node scripts/sources.cjs core)'],
    'include_dirs': ['native', '<!(node -p "require(\'node-addon-api\').include_dir")'],
    'defines': ['NAPI_VERSION=9', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NAPI_CPP_EXCEPTIONS'],
    # Node's own defaults differ between its versions; these do not.
    'cflags!': ['-fno-exceptions'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-fno-strict-aliasing', '-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': ['-std=c++20', '-fexceptions', '<!@(node scripts/sources.cjs flags)'],
    'ldflags': ['-Wl,--exclude-libs,ALL'],
    'xcode_settings': {
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'OTHER_CPLUSPLUSFLAGS': ['<!@(node scripts/sources.cjs flags)'],
    },
    'msvs_settings': { 'VCCLCompilerTool': { 'ExceptionHandling': 1, 'AdditionalOptions': ['/std:c++20', '/fp:precise'] } },
  }],
}
