"""Where the cases are that a new implementation of Ray's API tends to get wrong.

Owns the list alone: each entry names the cases of other files that pin it down. Where ray_lite
differs from Ray on purpose, the case named is the one that is marked so.
"""

from __future__ import annotations

import importlib
import itertools

EDGE_CASES: dict[str, list[str]] = {
    "1. get of a list raises at once, the first in the list of those that have failed": [
        "put_get.test_get_of_a_list_raises_before_slow_refs_are_done",
        "put_get.test_get_of_failed_refs_raises_the_first_in_the_list",
    ],
    "2. get of another container is a ValueError, of a list of others a TypeError": [
        "put_get.test_get_of_a_container_that_is_no_list_raises_value_error",
        "put_get.test_get_of_a_list_that_holds_no_ref_raises_type_error",
        "generators_streaming.test_get_of_a_stream_gives_the_stream",
    ],
    "3. wait gives no more than num_returns, in the order of the input; failed is ready": [
        "wait.test_wait_returns_no_more_than_num_returns_ready_refs",
        "wait.test_wait_keeps_the_order_of_the_input_in_both_lists",
        "wait.test_wait_counts_a_failed_ref_as_ready",
        "cancel.test_wait_counts_a_cancelled_task_as_ready",
        "wait.test_wait_on_duplicates_raises_value_error",
        "wait.test_wait_on_an_empty_list_gives_two_empty_lists",
    ],
    "4. a stream that has ended is ready": [
        "generators_streaming.test_wait_shows_a_stream_that_has_ended_as_ready",
    ],
    "5. a static generator with too many values": [
        "generators_static.test_generator_that_yields_too_many_fails_the_last_ref",
        "generators_static.test_generator_that_yields_too_many_is_closed_at_the_first_extra_value",
    ],
    "6. too few values: of a generator, the missing ones fail; of a function, all": [
        "generators_static.test_generator_that_yields_too_few_fails_the_missing_refs_only",
        "generators_static.test_function_that_returns_a_wrong_count_fails_every_ref",
    ],
    "7. num_returns=0 on a generator": [
        "generators_static.test_generator_with_num_returns_zero_gives_none",
        "generators_static.test_generator_with_num_returns_zero_runs_to_its_end",
    ],
    "8. a plain function that returns a generator object": [
        "generators_static.test_function_that_returns_a_generator_is_treated_as_that_generator",
        "generators_static.test_function_that_returns_a_longer_generator_fails_its_single_ref",
    ],
    "9. retry_exceptions, by the kind of the generator": [
        "retries.test_generator_exception_is_retried_with_retry_exceptions",
        "generators_dynamic.test_dynamic_with_retry_exceptions_gives_the_values_of_the_new_attempt",
        "generators_streaming.test_retry_exceptions_delivers_each_item_once",
    ],
    "10. a dynamic generator is consumed by iteration, and full again at every get": [
        "generators_dynamic.test_dynamic_generator_is_consumed_by_iteration",
        "generators_dynamic.test_dynamic_generator_is_full_again_at_every_get",
    ],
    "11. a dynamic generator that fails midway: the last item raises": [
        "generators_dynamic.test_dynamic_that_raises_has_one_more_ref_that_fails",
    ],
    "12. a stream that raises: the last item does, completed() does not": [
        "generators_streaming.test_exception_is_the_last_item",
    ],
    "13. a stream that crashes: the last item is what completed() gives": [
        "generators_streaming.test_crash_is_what_completed_raises",
    ],
    "14. the second attempt of a stream adds what is new; where it differs": [
        "generators_streaming.test_crash_that_is_retried_delivers_each_item_once",
        "generators_streaming.test_second_attempt_that_yields_more_delivers_the_extra_items",
        "generators_streaming.test_second_attempt_that_differs_from_what_was_visible_fails_the_stream",
    ],
    "15. a stream that is dropped goes on, a paused one too; what was taken stays": [
        "generators_streaming.test_dropped_generator_lets_its_task_run_to_the_end",
        "generators_streaming.test_backpressure_ends_when_the_generator_is_dropped",
        "generators_streaming.test_ref_that_was_taken_outlives_the_generator",
    ],
    "16. a streaming generator in arguments, results and put": [
        "generators_passed.test_stream_moves_to_the_task_that_it_is_passed_to",
        "generators_passed.test_stream_that_a_task_returns_moves_to_who_gets_it",
    ],
    "17. what get raises for a cancelled task: pending, killed, interrupted, or not": [
        "cancel.test_text_is_empty_before_the_task_ran_and_names_it_after",
        "cancel.test_forced_cancel_kills_the_worker_and_says_so_plainly",
        "cancel.test_running_task_is_interrupted_and_its_finally_runs",
        "cancel.test_swallowed_interrupt_lets_the_value_through",
    ],
    "18. a method of a sync actor is not interrupted, and its value not kept": [
        "cancel.test_running_call_is_not_interrupted_but_its_value_is_not_kept",
    ],
    "19. sys.exit is a crash of a task, and an end that an actor wants": [
        "errors.test_task_that_exits_is_a_crash_whatever_its_code",
        "retries.test_crash_is_retried_by_default",
        "actor_lifetime.test_actor_that_leaves_fails_its_calls_and_is_not_restarted",
    ],
    "20. an exception whose constructor has required arguments": [
        "errors.test_exception_with_required_arguments_arrives_as_itself",
        "errors.test_exception_with_keyword_only_arguments_arrives_as_itself",
    ],
    "21. a failed constructor is the actor's death, a failed method is not": [
        "actor_errors.test_error_of_a_constructor_names_the_constructor_and_its_frames",
        "actors.test_exception_of_a_method_reaches_the_caller_and_the_actor_lives_on",
    ],
    "22. a call that a restart cuts short; exit_actor never restarts": [
        "actor_restarts.test_restarted_actor_starts_anew_from_its_arguments",
        "actor_lifetime.test_actor_that_leaves_fails_its_calls_and_is_not_restarted",
    ],
    "23. a sync actor keeps the order behind a slow argument, a threaded one does not": [
        "actor_concurrency.test_calls_keep_their_order_behind_slow_arguments",
        "actor_concurrency.test_threaded_actor_lets_a_ready_call_overtake_one_that_waits",
    ],
    "24. arrays of any size are read-only; what is copied, and what changes its type": [
        "values.test_array_comes_back_read_only_and_aligned",
        "values.test_array_arrives_read_only_in_a_task",
        "values.test_array_returned_by_a_task_is_read_only",
        "values.test_array_of_objects_comes_back_as_a_writable_copy",
        "values.test_array_of_dates_is_shared_and_read_only",
        "values.test_array_that_is_not_contiguous_comes_back_read_only",
        "values.test_bytearray_keeps_its_type_and_stays_writable",
    ],
    "25. which handles keep an actor": [
        "actor_names.test_handle_of_get_actor_keeps_the_actor",
        "actor_lifetime.test_handle_of_a_task_keeps_the_actor_until_the_task_ends",
        "actor_handles.test_handle_held_by_another_actor_keeps_the_actor",
    ],
    "Options are not chained, and a bad strategy fails at the call": [
        "options.test_options_cannot_be_chained",
        "options.test_option_scheduling_strategy_unknown_raises_at_the_call",
    ],
    "A function is captured at its first call": [
        "remote.test_remote_function_is_captured_at_its_first_call",
    ],
    "A task that waits in get gives its CPU back": [
        "remote.test_task_blocked_in_get_gives_its_cpu_back",
    ],
    "get with a negative timeout": [
        "put_get.test_get_with_timeout_minus_one_waits_for_the_value",
        "put_get.test_get_with_another_negative_timeout_raises_value_error",
    ],
    "errno of an OSError": ["errors.test_os_error_keeps_errno_and_filename"],
    "nodes() starts no session": ["context.test_state_of_no_session_is_an_error_and_starts_none"],
}


def test_every_edge_case_has_its_cases() -> None:
    for path in itertools.chain.from_iterable(EDGE_CASES.values()):
        file, _, case = path.partition(".")
        module = importlib.import_module(f".test_{file}", __package__)
        assert callable(getattr(module, case, None)), path
