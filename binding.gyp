# Builds the addon. Headers: see native/node/include/node/common.gypi.
{
  'target_defaults': {
    'include_dirs': [
      'native',
      '<!(node -p "require(\'node-api-headers\').include_dir")',
      '<!(node -p "require(\'node-addon-api\').include_dir")',
    ],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
    'cflags_cc': ['-fexceptions'],
    'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', '_GNU_SOURCE'],
  },
  'variables': {
    'engine_sources': [
      'native/engine/buffer_pool.cc',
      'native/engine/device.cc',
      'native/engine/engine.cc',
      'native/engine/failure.cc',
      'native/engine/reader.cc',
      'native/engine/ring.cc',
    ],
    'binding_sources': [
      'native/binding/addon.cc',
      'native/binding/convert.cc',
      'native/binding/device_binding.cc',
      'native/binding/engine_binding.cc',
    ],
  },
  'targets': [
    {
      'target_name': 'understudy',
      'sources': ['<@(engine_sources)', '<@(binding_sources)'],
      'libraries': ['-l:liburing.a'],
    },
  ],
}
