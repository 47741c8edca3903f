/* The cases of a test program. Arguments: a folder for files, and the name of one case; without a name all of them. */

#ifndef TURNWISE_TEST_CASES_H
#define TURNWISE_TEST_CASES_H

#include "host.h"

struct test_case {
    const char *name;
    void (*run)(void);
    void (*run_in)(const char *folder);
};

static inline int run_cases(const struct test_case *cases, size_t count, int argc, char **argv) {
    CHECK(argc >= 2);
    int ran = 0;
    for (size_t index = 0; index < count; index++) {
        if (argc > 2 && strcmp(argv[2], cases[index].name) != 0) {
            continue;
        }
        if (cases[index].run != NULL) {
            cases[index].run();
        } else {
            cases[index].run_in(argv[1]);
        }
        printf("%s\n", cases[index].name);
        fflush(stdout);
        ran++;
    }
    return ran > 0 ? 0 : 2;
}

#endif
