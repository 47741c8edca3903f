/* What a host gets wrong. Each is an error code; none is undefined behaviour, a hang or a leak. */

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"

static void null_and_foreign(void) {
    struct world world;
    start(&world, NULL, NULL);
    TurnwiseError error = {.size = sizeof error};
    TurnwiseEvent event = {.size = sizeof event};
    TurnwiseHandle handle = 0;
    char *text = NULL;
    char id[40];
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_new(NULL, &handle, &error));
    CHECK(error.code == TURNWISE_INVALID_ARGUMENT && strcmp(error.message, "the options is null") == 0);
    OK(turnwise_string_free(error.message));
    TurnwiseAgent agent = {.size = sizeof agent};
    TurnwiseServiceOptions options = {.size = sizeof options};
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_new(&options, &handle, NULL));
    options.agent = &agent;
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_new(&options, &handle, NULL)); /* no run_turn */
    agent = agent_of(&world);
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_new(&options, NULL, NULL));
    options.settings = "{\"stack_size\":1}";
    options.settings_len = strlen(options.settings);
    CODE(TURNWISE_INVALID_CONFIG, turnwise_service_new(&options, &handle, NULL));
    options.settings = "{\"max_session\":1}";
    options.settings_len = strlen(options.settings);
    CODE(TURNWISE_INVALID_JSON, turnwise_service_new(&options, &handle, NULL));
    options.settings = NULL;
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_new(&options, &handle, NULL)); /* null with a length */
    options.settings_len = 0;
    options.store_path = "/";
    options.store_path_len = 1;
    CODE(TURNWISE_STORE_FAILED, turnwise_service_new(&options, &handle, NULL));
    CHECK(handle == 0 && gate_value(&world.freed) == 0); /* the context is still the host's */

    const TurnwiseHandle foreign[] = {0, 1, 0x5100000000000000, 0x51FFFFFF00000000, 0x5100000100000FFF, UINT64_MAX, world.service ^ 0x0300000000000000};
    for (size_t index = 0; index < sizeof foreign / sizeof *foreign; index++) {
        CODE(TURNWISE_INVALID_HANDLE, turnwise_service_stats(foreign[index], &text, NULL, NULL));
        CODE(TURNWISE_INVALID_HANDLE, turnwise_turn_poll(foreign[index], NULL, NULL));
        CODE(TURNWISE_INVALID_HANDLE, turnwise_next_event(foreign[index], 0, &event, NULL));
        CODE(TURNWISE_INVALID_HANDLE, turnwise_close(foreign[index], NULL));
        CODE(TURNWISE_INVALID_HANDLE, turnwise_context_check(foreign[index], NULL));
    }
    CODE(TURNWISE_WRONG_KIND, turnwise_turn_poll(world.service, NULL, NULL));
    CODE(TURNWISE_WRONG_KIND, turnwise_subscription_dropped(world.service, &(uint64_t){0}, NULL));
    CODE(TURNWISE_WRONG_KIND, turnwise_context_sleep(world.service, 0, NULL));

    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_stats(world.service, NULL, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_fd(world.service, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_open_session(world.service, NULL, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_next_event(world.service, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_begin_session(world.service, NULL, 0, NULL, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_create_session(world.service, NULL, 3, NULL, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_subscribe(world.service, NULL, 0, NULL, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_ID, turnwise_read(world.service, NULL, 0, &text, NULL, NULL));
    CODE(TURNWISE_INVALID_ID, turnwise_read(world.service, TURNWISE_TEXT("not an id"), &text, NULL, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_service_shutdown(world.service, 7, 0, NULL, NULL, NULL));
    open_session(&world, id);
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_archive(world.service, TURNWISE_TEXT(id), -1, NULL));
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_interrupt_turn(world.service, TURNWISE_TEXT(id), 0, NULL));
    CODE(TURNWISE_INVALID_CONFIG, turnwise_subscribe(world.service, NULL, 0, TURNWISE_TEXT("{\"overflow\":\"burst\"}"), &handle, NULL));
    CODE(TURNWISE_INVALID_JSON, turnwise_list(world.service, TURNWISE_TEXT("[]]"), &text, NULL, NULL));
    CHECK(handle == 0 && text == NULL);
    CHECK(strcmp(turnwise_code_name(TURNWISE_STALE), "STALE") == 0 && strcmp(turnwise_code_name(-5), "UNKNOWN") == 0);
    CHECK(turnwise_abi_version() == TURNWISE_ABI_VERSION && strlen(turnwise_version()) > 0);
    finish(&world);
}

static void closed_twice(void) {
    struct world world;
    start(&world, NULL, NULL);
    TurnwiseHandle first = 0, second = 0;
    OK(turnwise_subscribe(world.service, NULL, 0, NULL, 0, &first, NULL));
    OK(turnwise_close(first, NULL));
    CODE(TURNWISE_STALE, turnwise_close(first, NULL));
    TurnwiseEvent event = {.size = sizeof event};
    CODE(TURNWISE_STALE, turnwise_next_event(first, 0, &event, NULL));
    /* The slot is used again, and the old handle stays stale. */
    OK(turnwise_subscribe(world.service, NULL, 0, NULL, 0, &second, NULL));
    CHECK(first != second && (uint32_t)first == (uint32_t)second);
    CODE(TURNWISE_STALE, turnwise_next_event(first, 0, &event, NULL));
    CODE(TURNWISE_EMPTY, turnwise_next_event(second, 0, &event, NULL));
    /* The kind of a turn, with the number of a subscription. */
    CODE(TURNWISE_INVALID_HANDLE, turnwise_turn_poll((second & 0x00FFFFFFFFFFFFFF) | 0x5200000000000000, NULL, NULL));
    TurnwiseHandle service = world.service;
    finish(&world);
    CODE(TURNWISE_STALE, turnwise_close(service, NULL));
    CODE(TURNWISE_STALE, turnwise_service_stats(service, &(char *){NULL}, NULL, NULL));
    /* A subscription of a closed service ends. */
    CODE(TURNWISE_END, turnwise_next_event(second, -1, &event, NULL));
    OK(turnwise_close(second, NULL));
}

static void freed_twice(void) {
    struct world world;
    start(&world, NULL, NULL);
    char *text = NULL;
    size_t len = 0;
    OK(turnwise_service_stats(world.service, &text, &len, NULL));
    char *keep = text;
    CODE(TURNWISE_UNKNOWN_TEXT, turnwise_string_free(text + 1));
    OK(turnwise_string_free(text));
    CODE(TURNWISE_UNKNOWN_TEXT, turnwise_string_free(keep));
    OK(turnwise_string_free(NULL));
    char mine[4] = "abc";
    CODE(TURNWISE_UNKNOWN_TEXT, turnwise_string_free(mine));
    char *heap = malloc(8);
    CODE(TURNWISE_UNKNOWN_TEXT, turnwise_string_free(heap));
    free(heap);
    finish(&world);
}

/* A host that was compiled with an older or a newer header. */
static void sizes(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    struct {
        TurnwiseResult result;
        unsigned char beyond[64];
    } larger;
    memset(&larger, 0, sizeof larger);
    larger.result.size = sizeof larger;
    OK(turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say a"), NULL, 0, &larger.result, NULL));
    CHECK(strcmp(larger.result.text, "a") == 0 && larger.result.size == sizeof larger);
    for (size_t index = 0; index < sizeof larger.beyond; index++) {
        CHECK(larger.beyond[index] == 0);
    }
    OK(turnwise_string_free(larger.result.text));
    larger.beyond[63] = 1;
    CODE(TURNWISE_INVALID_STRUCT, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say b"), NULL, 0, &larger.result, NULL));

    /* Only the fields within the size are written; a text without a field is not given out. */
    TurnwiseResult smaller;
    memset(&smaller, 0xAA, sizeof smaller);
    smaller.size = offsetof(TurnwiseResult, stop_reason);
    OK(turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say c"), NULL, 0, &smaller, NULL));
    CHECK(strcmp(smaller.session_id, id) == 0 && smaller.turn == 2);
    CHECK(smaller.stop_reason == (int32_t)0xAAAAAAAA && (uintptr_t)smaller.text == (uintptr_t)0xAAAAAAAAAAAAAAAA);
    const size_t invalid[] = {0, 1, sizeof(size_t), 1 << 20, SIZE_MAX};
    for (size_t index = 0; index < sizeof invalid / sizeof *invalid; index++) {
        smaller.size = invalid[index];
        CODE(TURNWISE_INVALID_STRUCT, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say d"), NULL, 0, &smaller, NULL));
    }
    TurnwiseError short_error = {.size = offsetof(TurnwiseError, message), .message = (char *)1};
    CODE(TURNWISE_SESSION_NOT_RUNNING, turnwise_interrupt(world.service, TURNWISE_TEXT(id), &short_error));
    CHECK(short_error.code == TURNWISE_SESSION_NOT_RUNNING && short_error.message == (char *)1);
    TurnwiseError no_size = {.size = 0};
    CODE(TURNWISE_INVALID_STRUCT, turnwise_interrupt(world.service, TURNWISE_TEXT(id), &no_size));
    CHECK(no_size.code == 0);

    /* An agent of an older header has fewer functions, and none of them is missed. */
    struct world old;
    world_init(&old);
    TurnwiseAgent agent = agent_of(&old);
    agent.size = offsetof(TurnwiseAgent, drop_context);
    TurnwiseServiceOptions options = {.size = offsetof(TurnwiseServiceOptions, settings), .agent = &agent};
    options.settings = (const char *)1;
    OK(turnwise_service_new(&options, &old.service, NULL));
    char other[40];
    open_session(&old, other);
    expect(&old, other, "say old", "old");
    OK(turnwise_service_shutdown(old.service, TURNWISE_DRAIN, -1, NULL, NULL, NULL));
    OK(turnwise_close(old.service, NULL));
    CHECK(gate_value(&old.freed) == 0 && gate_value(&old.dropped) == 1);
    finish(&world);
}

static void texts(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    const char *invalid = "\xC3\x28";
    TurnwiseError error = {.size = sizeof error};
    CODE(TURNWISE_INVALID_UTF8, turnwise_start_turn(world.service, TURNWISE_TEXT(id), invalid, 2, NULL, 0, NULL, &error));
    CHECK(strstr(error.message, "the prompt is not valid UTF-8") != NULL);
    OK(turnwise_string_free(error.message));
    CODE(TURNWISE_INVALID_UTF8, turnwise_start_turn(world.service, invalid, 2, TURNWISE_TEXT("x"), NULL, 0, NULL, NULL));
    CODE(TURNWISE_INVALID_UTF8, turnwise_start_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("x"), invalid, 2, NULL, NULL));
    CODE(TURNWISE_INVALID_UTF8, turnwise_decline(world.service, TURNWISE_TEXT(id), 1, invalid, 2, NULL));
    CODE(TURNWISE_INVALID_ID, turnwise_read(world.service, id, 40, &(char *){NULL}, NULL, NULL)); /* with the NULs */
    CODE(TURNWISE_INVALID_ARGUMENT, turnwise_start_turn(world.service, TURNWISE_TEXT(id), "x", SIZE_MAX, NULL, 0, NULL, NULL));
    /* An empty prompt is one. */
    expect(&world, id, "", "1: ");
    finish(&world);
}

/* A context on another thread, and after the return of its callback. */
static void contexts(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle turn = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("stuck"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    TurnwiseHandle ctx = world.stashed;
    CODE(TURNWISE_WRONG_THREAD, turnwise_context_check(ctx, NULL));
    CODE(TURNWISE_WRONG_THREAD, turnwise_context_emit_text(ctx, TURNWISE_TEXT("x"), NULL));
    CODE(TURNWISE_WRONG_THREAD, turnwise_context_answer(ctx, TURNWISE_TEXT("x"), NULL, 0, NULL));
    CODE(TURNWISE_WRONG_KIND, turnwise_turn_poll(ctx, NULL, NULL));
    CODE(TURNWISE_WRONG_KIND, turnwise_close(ctx, NULL));
    CODE(TURNWISE_INVALID_HANDLE, turnwise_context_check(ctx + (1ULL << 32), NULL)); /* a later generation */
    gate_set(&world.released, 1);
    OK(turnwise_turn_wait(turn, -1, NULL, NULL));
    CODE(TURNWISE_STALE, turnwise_context_check(ctx, NULL));
    expect(&world, id, "say next", "next"); /* the same thread runs another callback */
    CODE(TURNWISE_STALE, turnwise_context_check(ctx, NULL));
    CODE(TURNWISE_STALE, turnwise_context_sleep(ctx, -1, NULL));
    OK(turnwise_close(turn, NULL));
    finish(&world);
    CODE(TURNWISE_STALE, turnwise_context_check(ctx, NULL));
}

struct waiter {
    struct world *world;
    TurnwiseHandle handle;
    const char *id;
    struct gate *begun;
    int kind;
    int32_t code;
    pthread_t thread;
};

static void *wait_in_call(void *argument) {
    struct waiter *waiter = argument;
    struct world *world = waiter->world;
    TurnwiseEvent event = {.size = sizeof event};
    char *text = NULL;
    gate_add(waiter->begun, 1);
    switch (waiter->kind) {
    case 0: waiter->code = turnwise_turn_wait(waiter->handle, -1, NULL, NULL); break;
    case 1:
        do {
            waiter->code = turnwise_next_event(waiter->handle, -1, &event, NULL);
            if (waiter->code == TURNWISE_OK) {
                OK(turnwise_string_free(event.json));
            }
        } while (waiter->code == TURNWISE_OK);
        break;
    case 2: waiter->code = turnwise_archive_wait(world->service, TURNWISE_TEXT(waiter->id), -1, NULL); break;
    case 3: waiter->code = turnwise_wait_idle(world->service, TURNWISE_TEXT(waiter->id), -1, NULL); break;
    case 4: waiter->code = turnwise_export_session(world->service, TURNWISE_TEXT(waiter->id), -1, &text, NULL, NULL); break;
    case 5: waiter->code = turnwise_create_session(world->service, TURNWISE_TEXT("stuck"), NULL, 0, NULL, NULL); break;
    default: waiter->code = turnwise_service_shutdown(world->service, TURNWISE_DRAIN, -1, NULL, NULL, NULL); break;
    }
    return NULL;
}

/* A close wakes every thread that waits, although the agent is stuck. */
static void close_wakes(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    struct gate begun = GATE_INIT;
    TurnwiseHandle turn = 0, other = 0, subscription = 0;
    OK(turnwise_stream_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("stuck"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    OK(turnwise_subscribe(world.service, TURNWISE_TEXT(id), NULL, 0, &subscription, NULL));

    /* The close of the waiting handle itself. */
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("say queued"), TURNWISE_TEXT("{\"when_busy\":\"queue\"}"), &other, NULL));
    struct waiter alone = {.world = &world, .handle = other, .begun = &begun, .kind = 0};
    CHECK(pthread_create(&alone.thread, NULL, wait_in_call, &alone) == 0);
    gate_wait(&begun, 1);
    OK(turnwise_close(other, NULL));
    CHECK(pthread_join(alone.thread, NULL) == 0);
    /* The close may have come before the call. */
    CHECK(alone.code == TURNWISE_CLOSED || alone.code == TURNWISE_STALE);

    struct waiter waiters[] = {
        {.handle = turn, .kind = 0}, {.handle = turn, .kind = 1}, {.handle = subscription, .kind = 1},
        {.handle = world.service, .kind = 1}, {.kind = 3}, {.kind = 4}, {.kind = 5}, {.kind = 2}, {.kind = 6},
    };
    const size_t count = sizeof waiters / sizeof *waiters;
    for (size_t index = 0; index < count; index++) {
        waiters[index].world = &world;
        waiters[index].id = id;
        waiters[index].begun = &begun;
    }
    /* The last two refuse new work, so they begin when the others wait. */
    for (size_t index = 0; index < count - 2; index++) {
        CHECK(pthread_create(&waiters[index].thread, NULL, wait_in_call, &waiters[index]) == 0);
    }
    gate_wait(&begun, (int)count - 1);
    gate_wait(&world.entered, 2); /* the created session is stuck too */
    for (size_t index = count - 2; index < count; index++) {
        CHECK(pthread_create(&waiters[index].thread, NULL, wait_in_call, &waiters[index]) == 0);
        gate_wait(&begun, (int)index + 2);
    }
    char *report = NULL;
    OK(turnwise_service_shutdown(world.service, TURNWISE_DRAIN, 1, &report, NULL, NULL));
    CHECK(strstr(report, id) != NULL); /* stuck */
    OK(turnwise_string_free(report));
    OK(turnwise_close(world.service, NULL));
    for (size_t index = 0; index < count; index++) {
        CHECK(pthread_join(waiters[index].thread, NULL) == 0);
        int32_t code = waiters[index].code;
        /* A call that had not begun finds the handle closed, or the session archived by another one. */
        if (code != TURNWISE_CLOSED && code != TURNWISE_STALE && code != TURNWISE_SESSION_NOT_FOUND && code != TURNWISE_END) {
            fprintf(stderr, "waiter %zu: %s\n", index, turnwise_code_name(code));
            abort();
        }
        CHECK(index > 1 || code == TURNWISE_CLOSED);
    }
    gate_set(&world.released, 1);
    OK(turnwise_close(turn, NULL));
    OK(turnwise_close(subscription, NULL));
    gate_wait(&world.freed, 1); /* the last user, a session thread, has freed the context */
    CHECK(gate_value(&world.dropped) == 2);
}

/* An agent closes the service that runs it. The last user is its session thread. */
static void close_in_callback(void) {
    struct world world;
    start(&world, NULL, NULL);
    TurnwiseHandle turn = 0;
    OK(turnwise_begin_session(world.service, TURNWISE_TEXT("close"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    int32_t code = turnwise_turn_wait(turn, -1, NULL, NULL);
    CHECK(code == TURNWISE_CLOSED || code == TURNWISE_AGENT_ERROR);
    OK(turnwise_close(turn, NULL));
    gate_wait(&world.freed, 1);
    CHECK(gate_value(&world.dropped) == 1);
}

static void wait_in_hook(void *context, void *state) {
    (void)state;
    struct world *world = context;
    char id[40];
    TurnwiseHandle turn = world->stashed;
    OK(turnwise_turn_ids(turn, id, NULL, NULL));
    world->code = turnwise_turn_wait(turn, -1, NULL, NULL);
    CODE(TURNWISE_EMPTY, turnwise_turn_poll(turn, NULL, NULL));
    CODE(TURNWISE_REENTRANT, turnwise_wait_idle(world->service, TURNWISE_TEXT(id), -1, NULL));
    CODE(TURNWISE_REENTRANT, turnwise_start_turn(world->service, TURNWISE_TEXT(id), TURNWISE_TEXT("x"), NULL, 0, NULL, NULL));
    CODE(TURNWISE_REENTRANT, turnwise_open_session(world->service, NULL, 0, id, NULL));
    gate_add(&world->cancels, 1); /* the turn waits for this */
}

/* Waits for what cannot come: the own turn in a cancel hook, and the events of the own session. */
static void waits_for_itself(void) {
    struct world world;
    world_init(&world);
    TurnwiseAgent agent = agent_of(&world);
    agent.on_cancel = wait_in_hook;
    TurnwiseServiceOptions options = {.size = sizeof options, .agent = &agent};
    OK(turnwise_service_new(&options, &world.service, NULL));
    char id[40];
    open_session(&world, id);
    expect(&world, id, "own events", "SESSION_REENTRANT");
    TurnwiseHandle turn = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("abort"), NULL, 0, &turn, NULL));
    world.stashed = turn;
    gate_wait(&world.entered, 1);
    OK(turnwise_turn_interrupt(turn, NULL));
    CHECK(world.code == TURNWISE_REENTRANT);
    CODE(TURNWISE_AGENT_ERROR, turnwise_turn_wait(turn, -1, NULL, NULL));
    OK(turnwise_close(turn, NULL));
    finish(&world);
}

static void timeouts(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle turn = 0;
    TurnwiseEvent event = {.size = sizeof event};
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("stuck"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    CODE(TURNWISE_EMPTY, turnwise_turn_wait(turn, 0, NULL, NULL));
    CODE(TURNWISE_EMPTY, turnwise_turn_wait(turn, 2, NULL, NULL));
    CODE(TURNWISE_EMPTY, turnwise_next_event(world.service, 2, &event, NULL));
    CODE(TURNWISE_SESSION_TIMEOUT, turnwise_wait_idle(world.service, TURNWISE_TEXT(id), 0, NULL));
    CODE(TURNWISE_SESSION_TIMEOUT, turnwise_wait_idle(world.service, TURNWISE_TEXT(id), 60, NULL));
    char *history = NULL;
    CODE(TURNWISE_SESSION_TIMEOUT, turnwise_export_session(world.service, TURNWISE_TEXT(id), 0, &history, NULL, NULL));
    CODE(TURNWISE_SESSION_TIMEOUT, turnwise_take_session(world.service, TURNWISE_TEXT(id), 1, &history, NULL, NULL));
    CODE(TURNWISE_EMPTY, turnwise_turn_poll(turn, NULL, NULL));
    gate_set(&world.released, 1);
    OK(turnwise_turn_wait(turn, INT64_MAX, NULL, NULL));
    OK(turnwise_turn_wait(turn, INT64_MIN, NULL, NULL));
    OK(turnwise_close(turn, NULL));
    finish(&world);
}

/* A child of a process that uses the library. */
static void forked(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    int result[2];
    CHECK(pipe(result) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        TurnwiseError error = {.size = sizeof error};
        char is_right = turnwise_read(world.service, TURNWISE_TEXT(id), &(char *){NULL}, NULL, &error) == TURNWISE_FORKED;
        is_right &= turnwise_close(world.service, NULL) == TURNWISE_FORKED;
        is_right &= turnwise_context_check(1, NULL) == TURNWISE_FORKED;
        is_right &= turnwise_string_free(NULL) == TURNWISE_FORKED;
        is_right &= turnwise_service_new(NULL, NULL, NULL) == TURNWISE_FORKED;
        is_right &= turnwise_abi_version() == TURNWISE_ABI_VERSION;
        if (write(result[1], &is_right, 1) != 1) {
            _exit(1);
        }
        /* No tool looks for leaks in the child, which has all memory of the parent and one of its threads. */
        raise(SIGKILL);
    }
    char is_right = 0;
    CHECK(read(result[0], &is_right, 1) == 1 && is_right);
    CHECK(waitpid(child, &(int){0}, 0) == child);
    close(result[0]);
    close(result[1]);
    expect(&world, id, "say parent", "parent");
    finish(&world);
}

static atomic_int is_over;

static void *use(void *argument) {
    struct world *world = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    while (!atomic_load(&is_over)) {
        TurnwiseHandle turn = 0;
        TurnwiseEvent event = {.size = sizeof event};
        int32_t code = turnwise_stream_session(world->service, TURNWISE_TEXT("emit 3"), NULL, 0, &turn, NULL);
        if (code == TURNWISE_OK) {
            char id[40];
            OK(turnwise_turn_ids(turn, id, NULL, NULL));
            for (int index = rand_r(&seed) % 6; index > 0; index--) {
                event.json = NULL;
                code = turnwise_next_event(turn, rand_r(&seed) % 2, &event, NULL);
                CHECK(code == TURNWISE_OK || code == TURNWISE_EMPTY || code == TURNWISE_END || code == TURNWISE_CLOSED);
                if (code == TURNWISE_OK) {
                    OK(turnwise_string_free(event.json));
                }
            }
            world->stashed = turn; /* another thread closes it too */
            turnwise_archive(world->service, TURNWISE_TEXT(id), TURNWISE_INTERRUPT, NULL);
            code = turnwise_close(turn, NULL);
            CHECK(code == TURNWISE_OK || code == TURNWISE_STALE);
        } else {
            CHECK(code == TURNWISE_CAPACITY_EXCEEDED || code == TURNWISE_STALE || code == TURNWISE_CLOSED || code == TURNWISE_SHUTTING_DOWN);
        }
    }
    return NULL;
}

/* Threads that use and close each other's handles. */
static void races(void) {
    struct world world;
    start(&world, "{\"max_sessions\":8,\"events\":{\"capacity\":16}}", NULL);
    int descriptor = -1;
    OK(turnwise_service_fd(world.service, &descriptor, NULL));
    atomic_store(&is_over, 0);
    pthread_t threads[4];
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_create(&threads[index], NULL, use, &world) == 0);
    }
    TurnwiseEvent event = {.size = sizeof event};
    for (int index = 0; index < 300; index++) {
        event.json = NULL;
        int32_t code = turnwise_next_event(world.service, 1, &event, NULL);
        CHECK(code == TURNWISE_OK || code == TURNWISE_EMPTY);
        if (code == TURNWISE_OK) {
            OK(turnwise_string_free(event.json));
        }
        code = turnwise_close(world.stashed, NULL);
        CHECK(code == TURNWISE_OK || code == TURNWISE_STALE || code == TURNWISE_INVALID_HANDLE);
    }
    TurnwiseHandle service = world.service;
    OK(turnwise_service_shutdown(service, TURNWISE_INTERRUPT, -1, NULL, NULL, NULL));
    OK(turnwise_close(service, NULL));
    atomic_store(&is_over, 1);
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
    gate_wait(&world.freed, 1);
}

/* The program ends while an agent is stuck. The harness checks the exit code. */
static struct world exiting;

static void exit_while_stuck(void) {
    start(&exiting, NULL, NULL);
    TurnwiseHandle turn = 0;
    OK(turnwise_begin_session(exiting.service, TURNWISE_TEXT("stuck"), NULL, 0, &turn, NULL));
    gate_wait(&exiting.entered, 1);
    char *report = NULL;
    OK(turnwise_service_shutdown(exiting.service, TURNWISE_INTERRUPT, 5, &report, NULL, NULL));
    CHECK(strstr(report, "\"stuck\":[\"") != NULL);
    OK(turnwise_string_free(report));
    OK(turnwise_close(turn, NULL));
    OK(turnwise_close(exiting.service, NULL));
}

static const struct test_case CASES[] = {
    {"null_and_foreign", null_and_foreign, NULL}, {"closed_twice", closed_twice, NULL}, {"freed_twice", freed_twice, NULL},
    {"sizes", sizes, NULL}, {"texts", texts, NULL}, {"contexts", contexts, NULL}, {"close_wakes", close_wakes, NULL},
    {"close_in_callback", close_in_callback, NULL}, {"waits_for_itself", waits_for_itself, NULL}, {"timeouts", timeouts, NULL}, {"forked", forked, NULL},
    {"races", races, NULL}, {"exit_while_stuck", exit_while_stuck, NULL},
};

int main(int argc, char **argv) { return run_cases(CASES, sizeof CASES / sizeof *CASES, argc, argv); }
