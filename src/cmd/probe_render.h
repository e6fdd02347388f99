/* probe_render - the `render` probe: chat templates against their reference (cmd/probe_render.c) */
#ifndef HEARTH_PROBE_RENDER_H
#define HEARTH_PROBE_RENDER_H

#include "base/buf.h"

/* Reads cases from standard input and answers on standard output, as tests/fixtures/PROBE.md says.
 * The template is the file's text (template_file not NULL), or template_text, unless a case brings
 * its own. A file that cannot be read is an error of the cases that need it. Returns the exit code.
 */
int probe_render(const char *template_file, struct view template_text);

#endif
