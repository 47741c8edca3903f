/*
 * A frame loop that hosts agents: one game master for each of two quests. The loop draws frames at its own pace and
 * never waits for an agent. It waits for the next frame with poll(2), on the descriptor of the service too.
 *
 *     cc -I../include game.c -L../target/release -lturnwise -Wl,-rpath,../target/release -o game && ./game
 */

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "turnwise.h"

enum { QUESTS = 2, FRAME_MS = 16 };

struct quest {
    const char *name;
    const char *prompt;
    char id[40];
    TurnwiseHandle turn;
    char line[256]; /* what the player sees */
    bool is_over;
};

/* Ends the program with the message of a failed call. */
static void check(int32_t code, const TurnwiseError *error) {
    if (code != TURNWISE_OK) {
        fprintf(stderr, "%s: %s\n", turnwise_code_name(code), error->message == NULL ? "" : error->message);
        exit(1);
    }
}

/* The game master. It runs on the thread of its session, tells a story word by word, and asks the player once. */
static int32_t tell(void *context, void *state, TurnwiseHandle ctx, const char *prompt, size_t prompt_len) {
    (void)context, (void)state, (void)prompt_len;
    static const char *const words[] = {"A", "door", "opens."};
    for (size_t index = 0; index < sizeof words / sizeof *words; index++) {
        int32_t code = turnwise_context_emit_text(ctx, TURNWISE_TEXT(words[index]), NULL);
        if (code == TURNWISE_OK) {
            code = turnwise_context_sleep(ctx, 5, NULL); /* stands for a model that thinks */
        }
        if (code != TURNWISE_OK) {
            return code; /* interrupted: the turn is cancelled */
        }
    }
    char *choice = NULL;
    int32_t code = turnwise_context_request_input(
        ctx,
        TURNWISE_TEXT("{\"kind\":\"choice\",\"message\":\"Go in?\",\"options\":"
                      "[{\"id\":\"in\",\"label\":\"Go in\"},{\"id\":\"away\",\"label\":\"Run away\"}]}"),
        &choice, NULL, NULL);
    if (code != TURNWISE_OK) {
        return code;
    }
    char answer[128];
    snprintf(answer, sizeof answer, "%.60s: you go %.20s.", prompt, choice);
    turnwise_string_free(choice);
    return turnwise_context_answer(ctx, TURNWISE_TEXT(answer), NULL, 0, NULL);
}

static struct quest *quest_of(struct quest *quests, const char *id) {
    for (int index = 0; index < QUESTS; index++) {
        if (strcmp(quests[index].id, id) == 0) {
            return &quests[index];
        }
    }
    return NULL;
}

/* The number behind `"name":` in an event. A real game has a JSON parser. */
static uint64_t number_in(const char *json, const char *name) {
    const char *found = strstr(json, name);
    return found == NULL ? 0 : strtoull(found + strlen(name), NULL, 10);
}

static void on_event(TurnwiseHandle service, struct quest *quest, const TurnwiseEvent *event) {
    TurnwiseError error = {.size = sizeof error};
    if (event->kind == TURNWISE_TURN_FINISHED) {
        TurnwiseResult result = {.size = sizeof result};
        check(turnwise_turn_poll(quest->turn, &result, &error), &error); /* it is there: this does not wait */
        snprintf(quest->line, sizeof quest->line, "%.200s", result.text);
        turnwise_string_free(result.text);
        check(turnwise_close(quest->turn, &error), &error);
        quest->is_over = true;
    } else if (strstr(event->json, "\"type\":\"text_delta\"") != NULL) {
        const char *delta = strstr(event->json, "\"delta\":\"") + strlen("\"delta\":\"");
        size_t used = strlen(quest->line);
        snprintf(quest->line + used, sizeof quest->line - used, "%.*s ", (int)strcspn(delta, "\""), delta);
    } else if (strstr(event->json, "\"type\":\"input_requested\"") != NULL) {
        /* A real game shows the choice and answers in a later frame. */
        const char *choice = strcmp(quest->name, "cave") == 0 ? "in" : "away";
        uint64_t input = number_in(event->json, "\"input_id\":");
        check(turnwise_respond(service, TURNWISE_TEXT(quest->id), input, TURNWISE_TEXT(choice), &error), &error);
    }
}

int main(void) {
    struct quest quests[QUESTS] = {{.name = "cave", .prompt = "the cave"}, {.name = "tower", .prompt = "the tower"}};
    TurnwiseError error = {.size = sizeof error};
    TurnwiseAgent agent = {.size = sizeof agent, .run_turn = tell};
    TurnwiseServiceOptions options = {.size = sizeof options, .agent = &agent};
    options.settings = "{\"events\":{}}"; /* the service's queue has the events of all sessions */
    options.settings_len = strlen(options.settings);
    TurnwiseHandle service = 0;
    check(turnwise_service_new(&options, &service, &error), &error);
    int descriptor = -1;
    check(turnwise_service_fd(service, &descriptor, &error), &error);
    for (int index = 0; index < QUESTS; index++) {
        struct quest *quest = &quests[index];
        check(turnwise_begin_session(service, TURNWISE_TEXT(quest->prompt), NULL, 0, &quest->turn, &error), &error);
        check(turnwise_turn_ids(quest->turn, quest->id, NULL, &error), &error);
    }

    int frames = 0;
    while (!quests[0].is_over || !quests[1].is_over) {
        /* A real loop also polls the descriptor of its window system, and draws when its time has come. */
        struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
        poll(&waiting, 1, FRAME_MS);
        TurnwiseEvent event = {.size = sizeof event};
        while (turnwise_next_event(service, 0, &event, &error) == TURNWISE_OK) {
            struct quest *quest = quest_of(quests, event.session_id);
            if (quest != NULL) {
                on_event(service, quest, &event);
            }
            turnwise_string_free(event.json);
        }
        frames++;
    }
    for (int index = 0; index < QUESTS; index++) {
        printf("%s\n", quests[index].line);
    }
    fprintf(stderr, "%d frames\n", frames);
    check(turnwise_service_shutdown(service, TURNWISE_INTERRUPT, -1, NULL, NULL, &error), &error);
    check(turnwise_close(service, &error), &error);
    return 0;
}
