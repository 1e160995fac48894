/* Runs the first entry of an engine with f32 inputs whose symbolic extents are all 4, every element
 * being its index, and prints the outputs.
 *
 *   cc run.c -I../include -L. -lsilure_capi -o run && ./run m.silure
 */
#include "silure.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_PORTS = 8, MAX_RANK = 8, ROOM = 4096 };

static int fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, silure_last_error());
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: run ENGINE\n");
    return 2;
  }
  silure_engine *engine = silure_open(argv[1]);
  if (!engine) return fail("open");
  silure_session *session = silure_session_new(engine, 2, 0);
  if (!session) return fail("session");

  static float data[2 * MAX_PORTS][ROOM];
  static int64_t dims[2 * MAX_PORTS][MAX_RANK];
  silure_tensor in[MAX_PORTS], out[MAX_PORTS];
  size_t n_in = silure_input_count(engine, 0), n_out = silure_output_count(engine, 0);
  if (n_in > MAX_PORTS || n_out > MAX_PORTS) return 2;

  for (size_t i = 0; i < n_in; i++) {
    silure_port port;
    if (silure_input(engine, 0, i, &port) != SILURE_OK) return fail("input");
    if (port.elem != SILURE_F32 || port.rank > MAX_RANK) return 2;
    size_t n = 1;
    for (int a = 0; a < port.rank; a++) {
      long extent = atol(silure_input_dim(engine, 0, i, a));
      dims[i][a] = extent ? extent : 4;
      n *= (size_t)dims[i][a];
    }
    if (n > ROOM) return 2;
    for (size_t k = 0; k < n; k++) data[i][k] = (float)k;
    in[i] = (silure_tensor){SILURE_F32, port.rank, dims[i], data[i], n * sizeof(float)};
  }
  for (size_t i = 0; i < n_out; i++) {
    silure_port port;
    if (silure_output(engine, 0, i, &port) != SILURE_OK) return fail("output");
    if (port.elem != SILURE_F32 || port.rank > MAX_RANK) return 2;
    size_t k = MAX_PORTS + i, n = 1;
    if (silure_output_extents(session, 0, in, n_in, i, dims[k]) != SILURE_OK) return fail("extents");
    for (int a = 0; a < port.rank; a++) n *= (size_t)dims[k][a];
    if (n > ROOM) return 2;
    out[i] = (silure_tensor){SILURE_F32, port.rank, dims[k], data[k], n * sizeof(float)};
  }

  if (silure_run(session, 0, in, n_in, out, n_out, 10.0) != SILURE_OK) return fail("run");
  for (size_t i = 0; i < n_out; i++) {
    silure_port port;
    silure_output(engine, 0, i, &port);
    printf("%s:", port.name);
    size_t n = 1;
    for (int a = 0; a < out[i].rank; a++) n *= (size_t)out[i].dims[a];
    for (size_t k = 0; k < n; k++) printf(" %g", ((float *)out[i].data)[k]);
    printf("\n");
  }

  /* A wrong call is an error with a message, not a crash. */
  if (silure_run(session, 99, in, n_in, out, n_out, 0.0) != SILURE_USAGE) return 3;
  silure_session_free(session);
  silure_close(engine);
  return 0;
}
