/* head.c - see head.h. */
#include "tests/gpu/head.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* What follows the first occurrence of label in the file, up to the end of the line; "unknown". */
static void file_find(const char *path, const char *label, char *out, size_t bytes)
{
    char line[1024];
    FILE *file = fopen(path, "re");
    snprintf(out, bytes, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *at = strstr(line, label);
        if (!at)
            continue;
        at += strlen(label);
        at += strspn(at, " \t:");
        at[strcspn(at, "\n")] = '\0';
        snprintf(out, bytes, "%s", at);
        break;
    }
    if (file)
        fclose(file);
}

static void head_date(struct report *report)
{
    char text[32];
    struct tm tm;
    const time_t now = time(NULL);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    report_text(report, "date", "%s", text);
}

void head_host(struct report *report, const char *commit)
{
    char text[REPORT_VALUE_MAX];
    struct utsname name;
    head_date(report);
    report_text(report, "commit", "%s", commit);
    file_find("/proc/driver/nvidia/version", "Kernel Module", text, sizeof text);
    report_text(report, "driver", "%s", text);
    file_find("/proc/cpuinfo", "model name", text, sizeof text);
    report_text(report, "host_cpu", "%s", text);
    report_text(report, "host_cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    report_text(report, "host_memory_mib", "%ld",
                sysconf(_SC_PHYS_PAGES) / 1024 * (sysconf(_SC_PAGESIZE) / 1024));
    report_text(report, "kernel", "%s", uname(&name) ? "unknown" : name.release);
    file_find("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "", text, sizeof text);
    report_text(report, "shmem_huge", "%s", text);
}
