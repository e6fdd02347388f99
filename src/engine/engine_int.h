/* engine_int - the engine's tables, for its own files (engine.c, engine_step.c, engine_open.c)
 *
 * Nobody else includes this. Who may read and write what stands at each part. */
#ifndef HEARTH_ENGINE_INT_H
#define HEARTH_ENGINE_INT_H

#include "back/be_cpu.h"
#include "base/cell.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/guess.h"
#include "engine/sched.h"

#define RING     64    /* events of one request */
#define IDLE_US  50000 /* the idle loop shows life this often */
#define ENDS_MAX 32    /* tokens that end an answer; tok.c marks 18 at most */

/* An event in a job's ring; its text lies in the job's text buffer. */
struct record {
    struct engine_event event;
    size_t text_at;
};

enum job_state { JOB_FREE, JOB_ACTIVE, JOB_ENDED };

/* owner: the lock. The engine thread reads spec, prompt and n_prompt without it while a sequence is
 * the job's: engine_submit writes them and queues the job holding the lock once, the engine takes
 * the lock to admit it, and they are written again only when the place is free, which it becomes
 * after its last sequence was freed (by the engine thread), or while it had none yet (by whoever
 * ended it waiting). */
struct job {
    enum job_state state;
    uint32_t generation;
    bool is_cancelled;
    bool is_dropped;
    struct engine_spec spec;
    char stop_text[EMIT_STOP_MAX][EMIT_STOP_BYTES];
    int32_t *prompt; /* [n_ctx] */
    int32_t n_prompt;
    int32_t n_generated;
    int32_t n_open; /* choices not ended */
    enum engine_finish finish;
    bool is_unread; /* see struct engine_event */
    uint64_t submit_us;
    uint64_t start_us;
    uint64_t first_us;
    uint64_t last_us;
    struct record ring[RING];
    int32_t ring_at;
    int32_t n_event;
    char *text; /* [text_room] */
    size_t text_used;
};

/* owner: engine */
struct slot {
    struct emit emit;
    int32_t *text;   /* [n_ctx] prompt, answer, guesses */
    int32_t *answer; /* within text */
    int32_t n_answer;
    struct guess guess;
    bool is_drafted; /* the guesses of the step are a small model's */
};

struct engine {
    struct engine_parts parts;
    struct plan_config config;
    struct arena context;
    struct arena draft_context;
    struct arena step;
    struct arena requests;
    struct plan_context x; /* owner: engine; counts and tables of x.kv change under the lock only */
    struct be_cpu cpu;
    struct lock *lock;
    struct thread *thread;
    int fd;
    struct job *jobs; /* [n_job] */
    int32_t n_job;
    size_t text_room;
    size_t piece_max;

    /* owner: engine */
    struct slot *slots;     /* [n_parallel] */
    struct guess_bid *bids; /* [n_parallel] */
    int32_t n_bid;
    struct guess_cost cost;
    double waited_row_us; /* see row_us (engine_step.c); 0: the last step did not wait */
    struct draft draft;   /* in use when parts.draft_arch is there */
    int32_t *tokens;
    int32_t *pos;
    int32_t *rows;
    struct back_run *runs;
    float *row; /* [n_vocab] for several choices of one row */
    struct sample_cand *cands;
    int32_t *counts;
    float *raw;
    int32_t ends[ENDS_MAX];
    int32_t n_end;

    /* owner: the lock; sched.seq is written by the engine thread alone, which therefore reads it
     * without */
    struct sched sched;
    struct engine_stats stats;
    bool is_closing;
    bool has_started;
    bool has_news; /* events that nobody was told of */
    enum err start_error;
    char start_text[ERR_TEXT_MAX];

    /* owner: engine; of the running step, or whom the small model computes for: at_border asks
     * whether they still wait */
    struct sched_piece pieces[SCHED_SEQ_MAX + 1];
    int32_t n_piece;
    bool was_abandoned; /* the step before; owner: engine */
    uint64_t late_us;   /* no request that waits is late before; owner: the lock */

    struct cell heartbeat;
};

/* --- engine.c: events, holding the lock --- */

/* Tokens of each choice that one step may give out (EN-3). */
int32_t engine_room(const struct engine *e, const struct job *j);
/* Appends an event and its text to the job's ring; there must be room. */
void engine_give(struct engine *e, struct job *j, const struct engine_event *event,
                 struct view text);
/* Wakes the readers when events came since the last call. */
void engine_tell(struct engine *e);
/* Positions of a sequence from n on are not worth keeping. */
void engine_cut(struct engine *e, int32_t i_seq, int32_t n);
/* Ends a whole request, wherever it is. */
void engine_end_job(struct engine *e, int32_t i_job, enum engine_finish finish);
/* One choice is done: the rest of its text, its pages, its sequence; perhaps its request. */
void engine_end_choice(struct engine *e, int32_t i_seq, enum engine_finish finish);
/* Walks all tables; after every change of queue, sequences or pages (checked builds). */
void engine_check_state(struct engine *e);
/* The thread's function; arg: the engine, whose memory stands. */
void engine_thread(void *arg);

/* --- engine_step.c: the parts of a step, in this order; engine thread --- */

void engine_step_guess(struct engine *e); /* holding the lock */
/* Without it, where there is a small model; false: those that it guessed for have left meanwhile,
 * and are to be ended before the step is planned. */
bool engine_step_draft(struct engine *e);
int32_t engine_step_lay_out(struct engine *e); /* holding it, behind sched_plan; returns tokens */
void engine_step_run(struct engine *e, int32_t n_tok); /* without it */

/* --- engine_open.c --- */

/* Two tokens in one step and in two must give the same bits, of each model, through one layer of
 * each kind; ERR_FAILED, ERR_INTEGRITY. */
enum err engine_check(struct engine *e) MUST_USE;

#endif
