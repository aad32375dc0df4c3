/* omni messages - the tables of proto/README.md, from the list itself. */
#include <stdio.h>

#include "proto/cli/commands.h"
#include "proto/message_doc.h"

int command_messages(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    message_doc_print(stdout);
    return EXIT_DONE;
}
