e2e_test(e2e_python_client fast test_python_client.py)
