/* Hosts with an event loop of their own: poll(2) on the descriptor of a service. */

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "cases.h"

static int descriptor_of(struct world *world) {
    int descriptor = -1;
    OK(turnwise_service_fd(world->service, &descriptor, NULL));
    CHECK(descriptor >= 0);
    return descriptor;
}

static bool is_readable(int descriptor, int timeout_ms) {
    struct pollfd poll_for = {.fd = descriptor, .events = POLLIN};
    int ready = poll(&poll_for, 1, timeout_ms);
    CHECK(ready >= 0);
    return ready == 1 && (poll_for.revents & POLLIN) != 0;
}

static void properties(void) {
    struct world world;
    start(&world, NULL, NULL);
    int descriptor = descriptor_of(&world);
    CHECK(descriptor == descriptor_of(&world));
    CHECK((fcntl(descriptor, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(!is_readable(descriptor, 0));
    finish(&world);
}

/* Many sessions in one loop: every turn is reported once, behind its events. */
static void many_turns(void) {
    enum { SESSIONS = 20 };
    struct world world;
    start(&world, "{\"events\":{\"capacity\":4096}}", NULL);
    int descriptor = descriptor_of(&world);
    TurnwiseHandle turns[SESSIONS] = {0};
    int events[SESSIONS] = {0};
    char ids[SESSIONS][40];
    for (int index = 0; index < SESSIONS; index++) {
        OK(turnwise_begin_session(world.service, TURNWISE_TEXT("emit 5"), NULL, 0, &turns[index], NULL));
        OK(turnwise_turn_ids(turns[index], ids[index], NULL, NULL));
    }
    TurnwiseEvent event = {.size = sizeof event};
    for (int finished = 0; finished < SESSIONS;) {
        CHECK(is_readable(descriptor, -1));
        int32_t code;
        while ((code = turnwise_next_event(world.service, 0, &event, NULL)) == TURNWISE_OK) {
            int index = 0;
            while (strcmp(ids[index], event.session_id) != 0) {
                CHECK(++index < SESSIONS);
            }
            if (event.kind == TURNWISE_EVENT) {
                events[index]++;
                OK(turnwise_string_free(event.json));
                continue;
            }
            CHECK(event.kind == TURNWISE_TURN_FINISHED && event.turn_handle == turns[index] && event.json == NULL);
            CHECK(events[index] == 7); /* run_started, 5 pieces, run_completed */
            TurnwiseResult result = {.size = sizeof result};
            OK(turnwise_turn_poll(turns[index], &result, NULL)); /* it is there */
            CHECK(strcmp(result.text, "emitted") == 0);
            OK(turnwise_string_free(result.text));
            OK(turnwise_close(turns[index], NULL));
            turns[index] = 0;
            finished++;
        }
        CODE(TURNWISE_EMPTY, code);
    }
    CHECK(!is_readable(descriptor, 0));
    finish(&world);
}

/* A loop that takes one item for each poll misses none, whatever the order of reads and events is. */
static void one_at_a_time(void) {
    struct world world;
    start(&world, "{\"events\":{\"capacity\":4096}}", NULL);
    int descriptor = descriptor_of(&world);
    char id[40];
    open_session(&world, id);
    for (int round = 0; round < 50; round++) {
        TurnwiseHandle turn = 0;
        OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 3"), NULL, 0, &turn, NULL));
        int items = 0;
        for (bool is_over = false; !is_over;) {
            CHECK(is_readable(descriptor, -1));
            TurnwiseEvent event = {.size = sizeof event};
            int32_t code = turnwise_next_event(world.service, 0, &event, NULL);
            if (code == TURNWISE_OK) {
                items++;
                is_over = event.kind == TURNWISE_TURN_FINISHED;
                OK(turnwise_string_free(event.json));
            } else {
                CODE(TURNWISE_EMPTY, code);
            }
        }
        CHECK(items == 6);
        OK(turnwise_close(turn, NULL));
    }
    finish(&world);
}

/* A stream and a subscription have the same descriptor as the service. */
static void streams(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle turn = 0, subscription = 0;
    OK(turnwise_subscribe(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("{\"capacity\":4096}"), &subscription, NULL));
    OK(turnwise_stream_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 1000"), NULL, 0, &turn, NULL));
    int descriptor = descriptor_of(&world); /* begun later: what is there already counts */
    int of_stream = 0, of_subscription = 0;
    bool has_ended = false, is_finished = false;
    TurnwiseEvent event = {.size = sizeof event};
    while (!has_ended || !is_finished || of_subscription < 1002) {
        CHECK(is_readable(descriptor, -1));
        int32_t code = TURNWISE_OK;
        while (!has_ended && (code = turnwise_next_event(turn, 0, &event, NULL)) == TURNWISE_OK) {
            of_stream++;
            OK(turnwise_string_free(event.json));
        }
        has_ended |= code == TURNWISE_END;
        while (turnwise_next_event(subscription, 0, &event, NULL) == TURNWISE_OK) {
            of_subscription++;
            OK(turnwise_string_free(event.json));
        }
        while (turnwise_next_event(world.service, 0, &event, NULL) == TURNWISE_OK) {
            CHECK(event.kind == TURNWISE_TURN_FINISHED && event.turn_handle == turn);
            is_finished = true;
        }
    }
    CHECK(of_stream == 1002 && of_subscription == 1002);
    CHECK(!is_readable(descriptor, 0));
    OK(turnwise_close(turn, NULL));
    OK(turnwise_close(subscription, NULL));
    finish(&world);
}

/* A queued turn that is withdrawn has no events, and its end is reported all the same. */
static void withdrawn(void) {
    struct world world;
    start(&world, NULL, NULL);
    char id[40];
    open_session(&world, id);
    TurnwiseHandle first = 0, queued = 0;
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("sleep"), NULL, 0, &first, NULL));
    OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("x"), TURNWISE_TEXT("{\"when_busy\":\"queue\"}"), &queued, NULL));
    int descriptor = descriptor_of(&world);
    OK(turnwise_turn_interrupt(queued, NULL));
    CHECK(is_readable(descriptor, -1));
    TurnwiseEvent event = {.size = sizeof event};
    OK(turnwise_next_event(world.service, -1, &event, NULL));
    CHECK(event.kind == TURNWISE_TURN_FINISHED && event.turn_handle == queued);
    CODE(TURNWISE_EMPTY, turnwise_next_event(world.service, 0, &event, NULL));
    CHECK(!is_readable(descriptor, 0));
    /* The notice of a closed turn is not given out. */
    OK(turnwise_turn_interrupt(first, NULL));
    CHECK(is_readable(descriptor, -1));
    OK(turnwise_close(first, NULL));
    CODE(TURNWISE_EMPTY, turnwise_next_event(world.service, 0, &event, NULL));
    CHECK(!is_readable(descriptor, 0));
    OK(turnwise_close(queued, NULL));
    finish(&world);
}

static void *read_until_closed(void *argument) {
    struct world *world = argument;
    TurnwiseEvent event = {.size = sizeof event};
    int32_t code;
    while ((code = turnwise_next_event(world->service, -1, &event, NULL)) == TURNWISE_OK) {
        if (event.kind == TURNWISE_TURN_FINISHED) {
            gate_add(&world->entered, 1);
        }
        OK(turnwise_string_free(event.json));
    }
    CHECK(code == TURNWISE_CLOSED || code == TURNWISE_STALE || code == TURNWISE_END);
    return NULL;
}

/* Readers that wait in next_event and a loop that polls share the queue: each item goes to one of them. */
static void readers_and_poll(void) {
    enum { TURNS = 200, READERS = 3 };
    struct world world;
    start(&world, "{\"events\":{\"capacity\":65536}}", NULL);
    int descriptor = descriptor_of(&world);
    char id[40];
    open_session(&world, id);
    pthread_t readers[READERS];
    for (int index = 0; index < READERS; index++) {
        CHECK(pthread_create(&readers[index], NULL, read_until_closed, &world) == 0);
    }
    TurnwiseHandle turns[TURNS] = {0};
    TurnwiseEvent event = {.size = sizeof event};
    for (int index = 0; index < TURNS; index++) {
        OK(turnwise_begin_turn(world.service, TURNWISE_TEXT(id), TURNWISE_TEXT("emit 2"), NULL, 0, &turns[index], NULL));
        while (turnwise_turn_poll(turns[index], NULL, NULL) == TURNWISE_EMPTY) {
            if (is_readable(descriptor, 1) && turnwise_next_event(world.service, 0, &event, NULL) == TURNWISE_OK) {
                if (event.kind == TURNWISE_TURN_FINISHED) {
                    gate_add(&world.entered, 1);
                }
                OK(turnwise_string_free(event.json));
            }
        }
    }
    gate_wait(&world.entered, TURNS);
    CHECK(gate_value(&world.entered) == TURNS);
    for (int index = 0; index < TURNS; index++) {
        OK(turnwise_close(turns[index], NULL));
    }
    OK(turnwise_service_shutdown(world.service, TURNWISE_INTERRUPT, -1, NULL, NULL, NULL));
    OK(turnwise_close(world.service, NULL));
    for (int index = 0; index < READERS; index++) {
        CHECK(pthread_join(readers[index], NULL) == 0);
    }
    gate_wait(&world.freed, 1);
}

static void *poll_for_ever(void *argument) {
    CHECK(is_readable(*(int *)argument, -1));
    return NULL;
}

/* A close makes the descriptor readable, so that a loop does not wait for ever. The number stays valid meanwhile. */
static void close_ends_poll(void) {
    struct world world;
    start(&world, NULL, NULL);
    TurnwiseHandle turn = 0;
    OK(turnwise_begin_session(world.service, TURNWISE_TEXT("stuck"), NULL, 0, &turn, NULL));
    gate_wait(&world.entered, 1);
    int descriptor = dup(descriptor_of(&world)); /* a number of its own, which outlives the service */
    CHECK(descriptor >= 0);
    pthread_t poller;
    CHECK(pthread_create(&poller, NULL, poll_for_ever, &descriptor) == 0);
    OK(turnwise_close(world.service, NULL));
    CHECK(pthread_join(poller, NULL) == 0);
    close(descriptor);
    gate_set(&world.released, 1);
    OK(turnwise_close(turn, NULL));
    gate_wait(&world.freed, 1);
}

static const struct test_case CASES[] = {
    {"properties", properties, NULL}, {"many_turns", many_turns, NULL}, {"one_at_a_time", one_at_a_time, NULL},
    {"streams", streams, NULL}, {"withdrawn", withdrawn, NULL}, {"readers_and_poll", readers_and_poll, NULL},
    {"close_ends_poll", close_ends_poll, NULL},
};

int main(int argc, char **argv) { return run_cases(CASES, sizeof CASES / sizeof *CASES, argc, argv); }
