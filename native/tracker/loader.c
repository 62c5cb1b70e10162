/*
 * understudy-loader: loads the tracker's programs for one volume, attaches them and pins everything
 * below a folder of bpffs; and takes the pins away again. A program of its own because libbpf does
 * not link into a .node file, because the maps are better not charged to the agent's cgroup, and
 * because only this needs the privilege of loading. Prints nothing on success; on failure one line
 * of JSON on standard error.
 *
 *   understudy-loader prepare --pins DIR
 *   understudy-loader attach --pins DIR --name NAME --disk MAJOR:MINOR --start SECTORS --sectors N
 *       --shift N --whole 0|1 --sequence N --generation HEX --boot HEX
 *   understudy-loader detach --pins DIR --name NAME
 *   understudy-loader remove --pins DIR
 *
 * DIR/control is made by the first attach and shared by all volumes of DIR. A volume's pins appear
 * under DIR/NAME by one rename, complete or not at all.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "layout.h"
#ifdef UNDERSTUDY_TEST_KNOBS
#include "tracker_test.skel.h"
#else
#include "tracker.skel.h"
#endif

#define BPFFS "/sys/fs/bpf"
#define PATH_SIZE 4096

struct options {
  const char *pins, *name, *generation, *boot;
  unsigned disk_major, disk_minor, whole;
  uint64_t start, sectors, shift, sequence;
#ifdef UNDERSTUDY_TEST_KNOBS
  unsigned omit, lose_one_in;
#endif
};

/* The last lines of libbpf and the verifier: what tells why a load failed. */
static char log_tail[2048];

static int keep_log(enum libbpf_print_level level, const char *format, va_list arguments) {
  char line[1024];
  if (level == LIBBPF_DEBUG) return 0;
  int length = vsnprintf(line, sizeof(line), format, arguments);
  if (length < 0) return 0;
  size_t used = strlen(log_tail), want = strlen(line);
  if (used + want >= sizeof(log_tail)) {
    memmove(log_tail, log_tail + used / 2, used - used / 2 + 1);
    used = strlen(log_tail);
  }
  if (used + want < sizeof(log_tail)) memcpy(log_tail + used, line, want + 1);
  return 0;
}

static void print_json_text(const char *text) {
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') fprintf(stderr, "\\%c", c);
    else if (c < 32) fprintf(stderr, "\\u%04x", c);
    else fputc(c, stderr);
  }
}

static int fail(const char *step, int error, const char *path) {
  const char *name = strerrorname_np(error);
  fprintf(stderr, "{\"syscall\":\"%s\",\"errno\":\"%s\",\"path\":\"", step, name ? name : "EIO");
  print_json_text(path);
  fprintf(stderr, "\",\"detail\":\"");
  print_json_text(log_tail);
  fprintf(stderr, "\"}\n");
  return 1;
}

static void join(char *out, const char *first, const char *second) {
  snprintf(out, PATH_SIZE, "%s/%s", first, second);
}

/* Mounts bpffs where nobody has, and makes the folder of pins. */
static int prepare_folder(const char *pins) {
  struct statfs info;
  if (!strncmp(pins, BPFFS, strlen(BPFFS)) && !statfs(BPFFS, &info) &&
      (unsigned long)info.f_type != BPF_FS_MAGIC && mount("bpffs", BPFFS, "bpf", 0, "mode=0700"))
    return fail("mount", errno, BPFFS);
  char path[PATH_SIZE];
  snprintf(path, sizeof(path), "%s", pins);
  for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(path, 0700);
    *slash = '/';
  }
  if (mkdir(path, 0700) && errno != EEXIST) return fail("mkdir", errno, path);
  if (statfs(path, &info)) return fail("statfs", errno, path);
  if ((unsigned long)info.f_type != BPF_FS_MAGIC) return fail("statfs", EMEDIUMTYPE, path);
  return 0;
}

static int remove_folder(const char *path) {
  DIR *folder = opendir(path);
  if (!folder) return errno == ENOENT ? 0 : fail("opendir", errno, path);
  char child[PATH_SIZE];
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] == '.') continue;
    join(child, path, entry->d_name);
    if (unlink(child) && errno != ENOENT) {
      int error = errno;
      closedir(folder);
      return fail("unlink", error, child);
    }
  }
  closedir(folder);
  return rmdir(path) && errno != ENOENT ? fail("rmdir", errno, path) : 0;
}

/* The control map of the folder, shared by all its volumes. */
static int use_control(struct tracker_bpf *tracker, const char *pins) {
  char path[PATH_SIZE];
  join(path, pins, "control");
  int fd = bpf_obj_get(path);
  if (fd < 0 && errno != ENOENT) return fail("BPF_OBJ_GET", errno, path);
  if (fd < 0) return 0;
  int error = bpf_map__reuse_fd(tracker->maps.control, fd);
  close(fd);
  return error ? fail("BPF_MAP_REUSE", -error, path) : 0;
}

static int pin_control(struct tracker_bpf *tracker, const char *pins) {
  char path[PATH_SIZE];
  join(path, pins, "control");
  int fd = bpf_map__fd(tracker->maps.control);
  uint64_t *words = mmap(NULL, CONTROL_WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (words == MAP_FAILED) return fail("mmap", errno, path);
  words[CONTROL_MAGIC] = TRACKER_MAGIC;
  words[CONTROL_VERSION] = TRACKER_VERSION;
  munmap(words, CONTROL_WORDS * 8);
  if (access(path, F_OK) == 0) return 0;
  return bpf_obj_pin(fd, path) ? fail("BPF_OBJ_PIN", errno, path) : 0;
}

struct shape {
  uint64_t blocks, plane_words, summary_words, words;
};

static uint64_t whole_pages(uint64_t words) {
  return (words + PAGE_WORDS - 1) / PAGE_WORDS * PAGE_WORDS;
}

static struct shape shape_of(const struct options *options) {
  struct shape shape;
  shape.blocks = (options->sectors + (1ULL << options->shift) - 1) >> options->shift;
  shape.plane_words = whole_pages((shape.blocks + 63) / 64);
  shape.summary_words = whole_pages(shape.plane_words / LINE_WORDS / 64);
  shape.words = PLANES_BEGIN + PLANE_COUNT * (shape.plane_words + shape.summary_words);
  return shape;
}

static void hex_words(const char *text, uint64_t out[2]) {
  char half[17] = {0};
  memcpy(half, text, 16);
  out[0] = strtoull(half, NULL, 16);
  memcpy(half, text + 16, 16);
  out[1] = strtoull(half, NULL, 16);
}

static int write_header(struct tracker_bpf *tracker, const struct options *options) {
  const struct shape shape = shape_of(options);
  int fd = bpf_map__fd(tracker->maps.volume);
  uint64_t *header = mmap(NULL, HEADER_WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (header == MAP_FAILED) return fail("mmap", errno, options->name);
  header[HEADER_VERSION] = TRACKER_VERSION;
  header[HEADER_SHIFT] = options->shift;
  header[HEADER_BLOCKS] = shape.blocks;
  header[HEADER_PLANE_WORDS] = shape.plane_words;
  header[HEADER_SUMMARY_WORDS] = shape.summary_words;
  header[HEADER_START] = options->start;
  header[HEADER_SECTORS] = options->sectors;
  header[HEADER_DISK_MAJOR] = options->disk_major;
  header[HEADER_DISK_MINOR] = options->disk_minor;
  header[HEADER_DISK_SEQUENCE] = options->sequence;
  hex_words(options->generation, header + HEADER_GENERATION);
  hex_words(options->boot, header + HEADER_BOOT);
  header[HEADER_MAGIC] = TRACKER_MAGIC;
  munmap(header, HEADER_WORDS * 8);
  return 0;
}

static int configure(struct tracker_bpf *tracker, const struct options *options) {
  const struct shape shape = shape_of(options);
  if (shape.words > UINT32_MAX) return fail("max_entries", EFBIG, options->name);
  tracker->rodata->disk_major = options->disk_major;
  tracker->rodata->disk_minor = options->disk_minor;
  tracker->rodata->volume_start = options->start;
  tracker->rodata->volume_sectors = options->sectors;
  tracker->rodata->is_whole_disk = options->whole;
  tracker->rodata->block_shift = (uint32_t)options->shift;
  tracker->rodata->plane_words = shape.plane_words;
  tracker->rodata->summary_words = shape.summary_words;
#ifdef UNDERSTUDY_TEST_KNOBS
  tracker->rodata->omit = options->omit;
  tracker->rodata->lose_one_in = options->lose_one_in;
#endif
  int error = bpf_map__set_max_entries(tracker->maps.volume, (uint32_t)shape.words);
  return error ? fail("max_entries", -error, options->name) : 0;
}

static int pin_in(const char *folder, const char *name, int fd) {
  char path[PATH_SIZE];
  join(path, folder, name);
  return bpf_obj_pin(fd, path) ? fail("BPF_OBJ_PIN", errno, path) : 0;
}

static int pin_volume(struct tracker_bpf *tracker, const struct options *options) {
  char making[PATH_SIZE], made[PATH_SIZE];
  snprintf(making, sizeof(making), "%s/%s_new", options->pins, options->name);
  join(made, options->pins, options->name);
  if (remove_folder(making)) return 1;
  if (mkdir(making, 0700)) return fail("mkdir", errno, making);
  if (pin_in(making, "map", bpf_map__fd(tracker->maps.volume)) ||
      pin_in(making, "bio_queue", bpf_link__fd(tracker->links.bio_queue)) ||
      pin_in(making, "rq_issue", bpf_link__fd(tracker->links.rq_issue)) ||
      pin_in(making, "rq_complete", bpf_link__fd(tracker->links.rq_complete)) ||
      pin_in(making, "rq_complete_again", bpf_link__fd(tracker->links.rq_complete_again)) ||
      pin_in(making, "bio_complete", bpf_link__fd(tracker->links.bio_complete)))
    return 1;
  return rename(making, made) ? fail("rename", errno, made) : 0;
}

static int load(struct tracker_bpf *tracker, const struct options *options) {
  if (configure(tracker, options) || use_control(tracker, options->pins)) return 1;
  int error = tracker_bpf__load(tracker);
  if (error) return fail("BPF_PROG_LOAD", -error, options->name);
  if (pin_control(tracker, options->pins) || write_header(tracker, options)) return 1;
  error = tracker_bpf__attach(tracker);
  if (error) return fail("BPF_LINK_CREATE", -error, options->name);
  return pin_volume(tracker, options);
}

/*
 * The marks must neither be charged to the agent's memory limit nor go with its group. Where groups
 * are of version 1, or not ours to change, they are charged where they are.
 */
static void leave_control_group(void) {
  int fd = open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, "0", 1) != 1) snprintf(log_tail, sizeof(log_tail), "stays in its control group\n");
  close(fd);
}

static int attach(const struct options *options) {
  struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &unlimited); /* before Linux 5.11 maps count against it */
  leave_control_group();
  if (prepare_folder(options->pins)) return 1;
  struct tracker_bpf *tracker = tracker_bpf__open();
  if (!tracker) return fail("open", errno, options->name);
  int status = load(tracker, options);
  tracker_bpf__destroy(tracker);
  return status;
}

static int detach(const struct options *options) {
  char path[PATH_SIZE];
  snprintf(path, sizeof(path), "%s/%s_new", options->pins, options->name);
  if (remove_folder(path)) return 1;
  join(path, options->pins, options->name);
  return remove_folder(path);
}

static int set_option(struct options *options, const char *name, const char *value) {
  if (!strcmp(name, "pins")) options->pins = value;
  else if (!strcmp(name, "name")) options->name = value;
  else if (!strcmp(name, "generation") && strlen(value) == 32) options->generation = value;
  else if (!strcmp(name, "boot") && strlen(value) == 32) options->boot = value;
  else if (!strcmp(name, "disk"))
    return sscanf(value, "%u:%u", &options->disk_major, &options->disk_minor) != 2;
  else if (!strcmp(name, "start")) options->start = strtoull(value, NULL, 10);
  else if (!strcmp(name, "sectors")) options->sectors = strtoull(value, NULL, 10);
  else if (!strcmp(name, "shift")) options->shift = strtoull(value, NULL, 10);
  else if (!strcmp(name, "sequence")) options->sequence = strtoull(value, NULL, 10);
  else if (!strcmp(name, "whole")) options->whole = (unsigned)strtoul(value, NULL, 10);
#ifdef UNDERSTUDY_TEST_KNOBS
  else if (!strcmp(name, "omit")) options->omit = (unsigned)strtoul(value, NULL, 10);
  else if (!strcmp(name, "lose-one-in")) options->lose_one_in = (unsigned)strtoul(value, NULL, 10);
#endif
  else return 1;
  return 0;
}

int main(int count, char **arguments) {
  libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
  libbpf_set_print(keep_log);
  struct options options = {0};
  for (int i = 2; i + 1 < count; i += 2) {
    if (strncmp(arguments[i], "--", 2) || set_option(&options, arguments[i] + 2, arguments[i + 1]))
      return fail("arguments", EINVAL, arguments[i]);
  }
  const char *command = count > 1 ? arguments[1] : "";
  if (options.pins && !strcmp(command, "prepare")) return prepare_folder(options.pins);
  if (options.pins && !strcmp(command, "remove")) return remove_folder(options.pins);
  if (!options.pins || !options.name) return fail("arguments", EINVAL, command);
  if (!strcmp(command, "detach")) return detach(&options);
  if (strcmp(command, "attach") || !options.generation || !options.boot || !options.sectors)
    return fail("arguments", EINVAL, command);
  return attach(&options);
}
