# What node-gyp expects beside Node's headers. The addon uses Node-API alone, whose headers come
# from the package node-api-headers; so it builds on any machine, without a download and without
# Node's own headers.
{
  'variables': {
    'visibility%': 'hidden',
    'library%': 'static_library',
    'standalone_static_library%': 1,
    'openssl_fips%': '',
    'node_engine%': 'v8',
  },
  'target_defaults': {
    'default_configuration': 'Release',
    'configurations': {
      'Release': { 'cflags': ['-O2', '-g1'] },
      'Debug': { 'cflags': ['-O0', '-g'] },
    },
    'cflags': [
      '-pthread', '-Wall', '-Wextra', '-Wno-missing-field-initializers', '-fvisibility=hidden',
    ],
    'cflags_cc': ['-std=c++17', '-fno-rtti', '-fno-exceptions'],
    'ldflags': ['-pthread'],
  },
}
