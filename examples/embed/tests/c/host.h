/* What the test programs share: checks, gates between threads, and an agent that a prompt commands. */

#ifndef TURNWISE_TEST_HOST_H
#define TURNWISE_TEST_HOST_H

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "turnwise.h"

/* Ends the program with the text of the failure. */
#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                          \
        }                                                                                     \
    } while (0)

/* Checks the code of a call, and shows both. */
#define CODE(expected, call)                                                                              \
    do {                                                                                                  \
        int32_t code_ = (call);                                                                           \
        if (code_ != (expected)) {                                                                        \
            fprintf(stderr, "%s:%d: %s instead of %s: %s\n", __FILE__, __LINE__, turnwise_code_name(code_), \
                    turnwise_code_name(expected), #call);                                                 \
            abort();                                                                                      \
        }                                                                                                 \
    } while (0)

#define OK(call) CODE(TURNWISE_OK, call)

/* A number that threads wait for. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int value;
};

#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void gate_set(struct gate *gate, int value) {
    pthread_mutex_lock(&gate->lock);
    gate->value = value;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static inline void gate_add(struct gate *gate, int more) {
    pthread_mutex_lock(&gate->lock);
    gate->value += more;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static inline void gate_wait(struct gate *gate, int value) {
    pthread_mutex_lock(&gate->lock);
    while (gate->value < value) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

static inline int gate_value(struct gate *gate) {
    pthread_mutex_lock(&gate->lock);
    int value = gate->value;
    pthread_mutex_unlock(&gate->lock);
    return value;
}

/* What the agents and the tests share. Passed to every callback as its context. */
struct world {
    TurnwiseHandle service;
    struct gate entered;  /* callbacks that have reached their gate */
    struct gate released; /* callbacks that may leave it */
    struct gate dropped;  /* agents that were freed */
    struct gate freed;    /* contexts that were freed: 0 or 1 */
    struct gate cancels;  /* calls of on_cancel */
    _Atomic TurnwiseHandle stashed;
    char other[40];
    int32_t code;
};

struct state {
    char id[40];
    int turns;
};

static inline int32_t answer(TurnwiseHandle ctx, const char *text) {
    return turnwise_context_answer(ctx, TURNWISE_TEXT(text), NULL, 0, NULL);
}

static inline bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static inline int32_t build(void *context, TurnwiseHandle ctx, const char *spec, size_t spec_len, void **state) {
    (void)context;
    CHECK(spec[spec_len] == 0 && strlen(spec) == spec_len);
    if (strstr(spec, "\"no-build\"") != NULL) {
        turnwise_context_fail(ctx, TURNWISE_TEXT("this model is not built"), NULL, 0, NULL);
        return TURNWISE_OTHER_ERROR;
    }
    struct state *made = calloc(1, sizeof *made);
    CHECK(made != NULL);
    OK(turnwise_context_ids(ctx, made->id, NULL, NULL));
    *state = made;
    return TURNWISE_OK;
}

static inline int32_t run_command(struct world *world, struct state *state, TurnwiseHandle ctx, const char *prompt,
                                  size_t prompt_len) {
    TurnwiseError error = {.size = sizeof error};
    char line[128];
    if (begins(prompt, "say ")) {
        return answer(ctx, prompt + 4);
    }
    if (begins(prompt, "emit ")) {
        long count = strtol(prompt + 5, NULL, 10);
        for (long index = 0; index < count; index++) {
            int32_t code = turnwise_context_emit_text(ctx, TURNWISE_TEXT("x"), NULL);
            if (code != TURNWISE_OK) {
                return code;
            }
        }
        return answer(ctx, "emitted");
    }
    if (begins(prompt, "bytes")) {
        return turnwise_context_answer(ctx, prompt, prompt_len, NULL, 0, NULL);
    }
    if (begins(prompt, "sleep")) {
        gate_add(&world->entered, 1);
        return turnwise_context_sleep(ctx, -1, NULL);
    }
    if (begins(prompt, "abort")) {
        int before = gate_value(&world->cancels);
        CHECK(turnwise_context_check(ctx, NULL) == TURNWISE_OK);
        gate_add(&world->entered, 1);
        gate_wait(&world->cancels, before + 1);
        return turnwise_context_check(ctx, NULL);
    }
    if (begins(prompt, "stuck")) {
        world->stashed = ctx;
        gate_add(&world->entered, 1);
        gate_wait(&world->released, 1);
        return answer(ctx, "released");
    }
    if (begins(prompt, "fail ")) {
        OK(turnwise_context_fail(ctx, TURNWISE_TEXT(prompt + 5), TURNWISE_TEXT("{\"kind\":\"tool\",\"name\":\"saw\"}"), NULL));
        return TURNWISE_OTHER_ERROR;
    }
    if (begins(prompt, "code")) {
        return 4242;
    }
    if (begins(prompt, "ask")) {
        char *text = NULL;
        size_t len = 0;
        const char *request = "{\"kind\":\"permission\",\"message\":\"May I?\",\"options\":"
                              "[{\"id\":\"yes\",\"label\":\"Yes\"},{\"id\":\"no\",\"label\":\"No\"}]}";
        int32_t code = turnwise_context_request_input(ctx, TURNWISE_TEXT(request), &text, &len, NULL);
        if (code == TURNWISE_DECLINED) {
            return answer(ctx, "declined");
        }
        if (code != TURNWISE_OK) {
            return code;
        }
        CHECK(strlen(text) == len);
        code = answer(ctx, text);
        OK(turnwise_string_free(text));
        return code;
    }
    if (begins(prompt, "publish")) {
        OK(turnwise_context_publish(ctx, TURNWISE_TEXT("{\"message_count\":77,\"last_assistant_text\":\"soon\"}"), NULL));
        gate_add(&world->entered, 1);
        gate_wait(&world->released, 1);
        return answer(ctx, "published");
    }
    if (begins(prompt, "message")) {
        char *message = NULL;
        gate_add(&world->entered, 1);
        int32_t code = turnwise_context_next_message(ctx, -1, &message, NULL, NULL);
        if (code != TURNWISE_OK) {
            return code;
        }
        code = answer(ctx, message);
        OK(turnwise_string_free(message));
        return code;
    }
    if (begins(prompt, "shutdown")) {
        CODE(TURNWISE_REENTRANT, turnwise_service_shutdown(world->service, TURNWISE_INTERRUPT, -1, NULL, NULL, &error));
        CHECK(error.code == TURNWISE_REENTRANT && error.message_len == strlen(error.message));
        OK(turnwise_string_free(error.message));
        return answer(ctx, "reentrant");
    }
    if (begins(prompt, "self")) {
        /* A turn of the own session, and a wait for it. */
        world->code = turnwise_start_turn(world->service, TURNWISE_TEXT(state->id), TURNWISE_TEXT("say no"), NULL, 0, NULL, NULL);
        CODE(TURNWISE_SESSION_REENTRANT, turnwise_export_session(world->service, TURNWISE_TEXT(state->id), -1,
                                                                 &(char *){NULL}, NULL, NULL));
        return answer(ctx, turnwise_code_name(world->code));
    }
    if (begins(prompt, "own events")) {
        TurnwiseHandle events = 0;
        TurnwiseEvent event = {.size = sizeof event};
        OK(turnwise_subscribe(world->service, TURNWISE_TEXT(state->id), NULL, 0, &events, NULL));
        int32_t refused = turnwise_next_event(events, -1, &event, NULL);
        OK(turnwise_close(events, NULL));
        return answer(ctx, turnwise_code_name(refused));
    }
    if (begins(prompt, "other ")) {
        TurnwiseResult result = {.size = sizeof result};
        int32_t code = turnwise_start_turn(world->service, TURNWISE_TEXT(world->other), TURNWISE_TEXT(prompt + 6), NULL, 0,
                                           &result, NULL);
        if (code != TURNWISE_OK) {
            return code;
        }
        code = answer(ctx, result.text);
        OK(turnwise_string_free(result.text));
        return code;
    }
    if (begins(prompt, "close")) {
        OK(turnwise_close(world->service, NULL));
        CODE(TURNWISE_STALE, turnwise_service_stats(world->service, &(char *){NULL}, NULL, NULL));
        gate_add(&world->entered, 1);
        /* The close has cancelled this turn too. */
        return turnwise_context_check(ctx, NULL);
    }
    if (begins(prompt, "mask")) {
        sigset_t mask;
        sigemptyset(&mask);
        pthread_sigmask(SIG_BLOCK, NULL, &mask);
        return answer(ctx, sigismember(&mask, SIGINT) && sigismember(&mask, SIGUSR1) ? "blocked" : "open");
    }
    if (begins(prompt, "history")) {
        char *history = NULL;
        OK(turnwise_context_history(ctx, &history, NULL, NULL));
        int32_t code = answer(ctx, history);
        OK(turnwise_string_free(history));
        return code;
    }
    if (begins(prompt, "wrong")) {
        CODE(TURNWISE_INVALID_UTF8, turnwise_context_emit_text(ctx, "\xff\xfe", 2, &error));
        OK(turnwise_string_free(error.message));
        CODE(TURNWISE_INVALID_JSON, turnwise_context_emit(ctx, TURNWISE_TEXT("{"), NULL));
        CODE(TURNWISE_INVALID_JSON, turnwise_context_emit(ctx, TURNWISE_TEXT("{\"type\":\"unheard_of\"}"), NULL));
        CODE(TURNWISE_WRONG_KIND, turnwise_context_check(world->service, NULL));
        CODE(TURNWISE_INVALID_HANDLE, turnwise_context_check(0, NULL));
        CODE(TURNWISE_WRONG_KIND, turnwise_close(ctx, NULL));
        return answer(ctx, "refused");
    }
    snprintf(line, sizeof line, "%d: %.100s", state->turns, prompt);
    return answer(ctx, line);
}

static inline int32_t run_turn(void *context, void *state, TurnwiseHandle ctx, const char *prompt, size_t prompt_len) {
    struct state *mine = state;
    CHECK(prompt[prompt_len] == 0);
    mine->turns++;
    return run_command(context, mine, ctx, prompt, prompt_len);
}

static inline void drop_state(void *context, void *state) {
    struct world *world = context;
    free(state);
    gate_add(&world->dropped, 1);
}

static inline void drop_context(void *context) {
    struct world *world = context;
    gate_set(&world->freed, 1);
}

static inline void on_cancel(void *context, void *state) {
    struct world *world = context;
    CHECK(state != NULL);
    gate_add(&world->cancels, 1);
}

static inline TurnwiseAgent agent_of(struct world *world) {
    TurnwiseAgent agent = {.size = sizeof agent};
    agent.context = world;
    agent.build = build;
    agent.run_turn = run_turn;
    agent.drop_state = drop_state;
    agent.drop_context = drop_context;
    agent.on_cancel = on_cancel;
    return agent;
}

static inline void world_init(struct world *world) {
    struct world fresh = {.entered = GATE_INIT, .released = GATE_INIT, .dropped = GATE_INIT, .freed = GATE_INIT, .cancels = GATE_INIT};
    *world = fresh;
}

/* A service in `world`; with settings, and with a store if `path` is not null. */
static inline void start(struct world *world, const char *settings, const char *path) {
    world_init(world);
    TurnwiseAgent agent = agent_of(world);
    TurnwiseServiceOptions options = {.size = sizeof options, .agent = &agent};
    options.settings = settings;
    options.settings_len = settings == NULL ? 0 : strlen(settings);
    options.store_path = path;
    options.store_path_len = path == NULL ? 0 : strlen(path);
    TurnwiseError error = {.size = sizeof error};
    int32_t code = turnwise_service_new(&options, &world->service, &error);
    if (code != TURNWISE_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
}

/* Ends a service: all of its sessions have ended, and its context is freed. */
static inline void finish(struct world *world) {
    char *report = NULL;
    size_t len = 0;
    OK(turnwise_service_shutdown(world->service, TURNWISE_INTERRUPT, -1, &report, &len, NULL));
    CHECK(strlen(report) == len && strstr(report, "\"stuck\":[]") != NULL);
    OK(turnwise_string_free(report));
    OK(turnwise_close(world->service, NULL));
    gate_wait(&world->freed, 1);
}

static inline void open_session(struct world *world, char id[40]) {
    OK(turnwise_open_session(world->service, NULL, 0, id, NULL));
    CHECK(strlen(id) == 36);
}

/* Runs a turn, and compares its answer. */
static inline void expect(struct world *world, const char *id, const char *prompt, const char *text) {
    TurnwiseResult result = {.size = sizeof result};
    OK(turnwise_start_turn(world->service, TURNWISE_TEXT(id), TURNWISE_TEXT(prompt), NULL, 0, &result, NULL));
    if (strcmp(result.text, text) != 0) {
        fprintf(stderr, "'%s' instead of '%s'\n", result.text, text);
        abort();
    }
    CHECK(result.text_len == strlen(text) && strcmp(result.session_id, id) == 0);
    OK(turnwise_string_free(result.text));
}

#endif
