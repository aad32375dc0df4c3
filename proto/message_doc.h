/* message_doc.h - the list of messages as Markdown: the part of README.md below its marker. */
#ifndef OMNI_PROTO_MESSAGE_DOC_H
#define OMNI_PROTO_MESSAGE_DOC_H

#include <stdio.h>

void message_doc_print(FILE *out);

#endif
