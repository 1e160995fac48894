/* Silure runtime: loads a compiled engine and runs it.
 *
 *   silure_engine  *e = silure_open("m.silure");
 *   silure_session *s = e ? silure_session_new(e, 0, 0) : NULL;
 *   if (!s) { puts(silure_last_error()); return 1; }
 *   silure_run(s, 0, inputs, n_inputs, outputs, n_outputs, 0.0);
 *
 * Functions that return int give SILURE_OK or one of the codes below; those that return a pointer
 * give NULL on failure. silure_last_error() then says why, per thread. An engine may be used by
 * many threads at once; a session by one at a time (silure_cancel excepted). Sessions keep their
 * engine alive. Nothing here aborts or throws.
 */
#ifndef SILURE_H
#define SILURE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Result codes. */
enum {
  SILURE_OK = 0,
  SILURE_FAILURE = 1,      /* see silure_last_error */
  SILURE_USAGE = 2,        /* the call cannot be meant so */
  SILURE_TIMEOUT = 3,
  SILURE_CANCELLED = 4,
  SILURE_UNSUPPORTED = 5,  /* the engine is for another machine or a newer runtime */
  SILURE_MEMORY = 6
};

/* Element types. Types smaller than a byte take a byte each, extended by their sign or zeros. */
enum {
  SILURE_BOOL = 0, SILURE_I2 = 1, SILURE_I4 = 2, SILURE_I8 = 3, SILURE_I16 = 4, SILURE_I32 = 5,
  SILURE_I64 = 6, SILURE_U2 = 7, SILURE_U4 = 8, SILURE_U8 = 9, SILURE_U16 = 10, SILURE_U32 = 11,
  SILURE_U64 = 12, SILURE_F64 = 13, SILURE_F32 = 14, SILURE_TF32 = 15, SILURE_F16 = 16,
  SILURE_BF16 = 17, SILURE_E4M3FN = 18, SILURE_E5M2 = 19, SILURE_E4M3FNUZ = 20,
  SILURE_E5M2FNUZ = 21, SILURE_E8M0 = 22, SILURE_F4E2M1 = 23,
  SILURE_STRING = 24 /* silure_run refuses inputs and outputs of it */
};

typedef struct silure_engine silure_engine;
typedef struct silure_session silure_session;

/* A dense row-major tensor in the caller's memory, aligned to its element's size.
 * As an input: dims and data are read; bytes is the exact size of the data.
 * As an output: bytes is the room in data; the run writes dims and data. */
typedef struct silure_tensor {
  int32_t elem;
  int32_t rank;
  int64_t *dims;
  void *data;
  size_t bytes;
} silure_tensor;

/* An input or output of an entry. Pointers live as long as the engine. */
typedef struct silure_port {
  const char *name;
  int32_t elem;
  int32_t rank;
} silure_port;

/* The message of the calling thread's last failure; empty if there was none. Valid until the
 * thread's next call. */
const char *silure_last_error(void);

/* The version of this library, for example "0.1.0". */
const char *silure_version(void);

/* Loads an engine file. */
silure_engine *silure_open(const char *path);

/* Releases an engine; its sessions stay usable. NULL is allowed. */
void silure_close(silure_engine *engine);

/* Number of entries; the index of an entry by name, or -1. */
size_t silure_entry_count(const silure_engine *engine);
int32_t silure_entry(const silure_engine *engine, const char *name);

/* The name of an entry; NULL if there is none. */
const char *silure_entry_name(const silure_engine *engine, size_t entry);

/* Number of inputs and outputs of an entry (0 if there is no such entry). */
size_t silure_input_count(const silure_engine *engine, size_t entry);
size_t silure_output_count(const silure_engine *engine, size_t entry);

/* Describes an input or output. */
int silure_input(const silure_engine *engine, size_t entry, size_t index, silure_port *port);
int silure_output(const silure_engine *engine, size_t entry, size_t index, silure_port *port);

/* The extent of an axis as text, for example "n" or "3"; NULL if there is none. */
const char *silure_input_dim(const silure_engine *engine, size_t entry, size_t index, size_t axis);
const char *silure_output_dim(const silure_engine *engine, size_t entry, size_t index, size_t axis);

/* A session: states (zero at first), memory, threads. threads: 0 means 1; memory_limit in bytes,
 * 0 means none. */
silure_session *silure_session_new(const silure_engine *engine, size_t threads,
                                   uint64_t memory_limit);

/* Releases a session. NULL is allowed. */
void silure_session_free(silure_session *session);

/* Runs an entry into the caller's buffers. timeout in seconds, 0 means none. */
int silure_run(silure_session *session, size_t entry, const silure_tensor *inputs,
               size_t input_count, silure_tensor *outputs, size_t output_count, double timeout);

/* The extents that an output will have for inputs of these dims, written to as many int64_t as it
 * has axes. Nothing runs and data is not read (it may be NULL). SILURE_FAILURE if they depend on
 * the inputs' values. */
int silure_output_extents(silure_session *session, size_t entry, const silure_tensor *inputs,
                          size_t input_count, size_t index, int64_t *dims);

/* Stops the session's run from any thread; later runs stop too until silure_cancel_reset. */
void silure_cancel(const silure_session *session);
void silure_cancel_reset(const silure_session *session);

/* Sets all states to zero. */
int silure_reset(silure_session *session);

#ifdef __cplusplus
}
#endif
#endif
