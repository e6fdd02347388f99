/* log - one line per event on standard error, key=value form (base/log.c)
 *
 * Levels follow the journal: error needs a person, warn is degraded, info is one line per event
 * without content, debug is for developers. Prompts and answers are never logged. Any thread. */
#ifndef HEARTH_LOG_H
#define HEARTH_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_level_set(enum log_level level); /* default LOG_WARN */
void log_event(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
