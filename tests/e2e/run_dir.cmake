e2e_test(e2e_run_dir fast test_run_dir.sh)
