# Which tests ./tests/run runs.
e2e_test(e2e_tests_run fast test_tests_run.sh)
e2e_test(e2e_run_dir fast test_run_dir.sh)
