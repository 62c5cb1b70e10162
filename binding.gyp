# Builds the addon and the loader of the change tracker, and of each a second one that only tests
# use, in which rules can be taken out. Node's headers: see native/node/include/node/common.gypi.
{
  'variables': {
    'engine_sources': [
      'native/engine/bpf_calls.cc',
      'native/engine/buffer_pool.cc',
      'native/engine/cutter.cc',
      'native/engine/device.cc',
      'native/engine/engine.cc',
      'native/engine/failure.cc',
      'native/engine/flight.cc',
      'native/engine/pending.cc',
      'native/engine/reader.cc',
      'native/engine/ring.cc',
      'native/engine/tracked_volume.cc',
      'native/engine/tripwire.cc',
      'native/engine/volume_map.cc',
    ],
    'binding_sources': [
      'native/binding/addon.cc',
      'native/binding/compress_binding.cc',
      'native/binding/convert.cc',
      'native/binding/device_binding.cc',
      'native/binding/engine_binding.cc',
      'native/binding/tracker_binding.cc',
    ],
    'program_sources': [
      'native/tracker/make-skeleton',
      'native/tracker/tracker.bpf.c',
      'native/tracker/kernel_types.h',
      'native/tracker/layout.h',
      'native/tracker/test_knobs.h',
    ],
    'conditions': [
      ['target_arch=="arm64"', { 'bpf_machine': 'arm64' }, { 'bpf_machine': 'x86' }],
    ],
  },
  'target_defaults': {
    'include_dirs': [
      'native',
      'native/tracker',
      '<!(node -p "require(\'node-api-headers\').include_dir")',
      '<!(node -p "require(\'node-addon-api\').include_dir")',
    ],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
    'cflags_cc': ['-fexceptions'],
    'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', '_GNU_SOURCE'],
  },
  'targets': [
    {
      'target_name': 'understudy',
      'sources': ['<@(engine_sources)', '<@(binding_sources)'],
      'libraries': ['-l:liburing.a', '-l:liblz4.a'],
    },
    {
      'target_name': 'understudy_test',
      'sources': ['<@(engine_sources)', '<@(binding_sources)'],
      'libraries': ['-l:liburing.a', '-l:liblz4.a'],
      'defines': ['UNDERSTUDY_TEST_KNOBS'],
    },
    {
      'target_name': 'understudy-loader',
      'type': 'executable',
      'sources': ['native/tracker/loader.c'],
      'include_dirs': ['<(INTERMEDIATE_DIR)'],
      'ldflags': ['-static'],
      'libraries': ['-l:libbpf.a', '-l:libelf.a', '-l:libz.a'],
      'actions': [
        {
          'action_name': 'tracker_programs',
          'inputs': ['<@(program_sources)'],
          'outputs': ['<(INTERMEDIATE_DIR)/tracker.skel.h'],
          'action': ['native/tracker/make-skeleton', '<@(_outputs)', '<(bpf_machine)'],
        },
      ],
    },
    {
      'target_name': 'understudy-loader-test',
      'type': 'executable',
      'sources': ['native/tracker/loader.c'],
      'include_dirs': ['<(INTERMEDIATE_DIR)'],
      'ldflags': ['-static'],
      'libraries': ['-l:libbpf.a', '-l:libelf.a', '-l:libz.a'],
      'defines': ['UNDERSTUDY_TEST_KNOBS'],
      'actions': [
        {
          'action_name': 'tracker_test_programs',
          'inputs': ['<@(program_sources)'],
          'outputs': ['<(INTERMEDIATE_DIR)/tracker_test.skel.h'],
          'action': [
            'native/tracker/make-skeleton', '<@(_outputs)', '<(bpf_machine)',
            '-DUNDERSTUDY_TEST_KNOBS',
          ],
        },
      ],
    },
  ],
}
