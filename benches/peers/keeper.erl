%% N children under an OTP supervisor: each is a port that a gen_server owns, which ends when the port does and is started
%% again at once, however often.
-module(keeper).
-behaviour(gen_server).
-export([keep/3, child/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Started by a process that lives on: a supervisor goes with whoever it is linked to.
keep(Count, Program, Pipe) ->
    spawn(fun() ->
        {ok, _} = supervisor:start_link(?MODULE, {all, Count, Program, Pipe}),
        timer:sleep(infinity)
    end).

child(Number, Program, Pipe) ->
    gen_server:start_link(?MODULE, {one, Number, Program, Pipe}, []).

init({all, Count, Program, Pipe}) ->
    Child = fun(Number) ->
        #{id => Number, start => {?MODULE, child, [Number, Program, Pipe]}, restart => permanent}
    end,
    Flags = #{strategy => one_for_one, intensity => 1000000000, period => 1},
    {ok, {Flags, [Child(Number) || Number <- lists:seq(0, Count - 1)]}};
init({one, Number, Program, Pipe}) ->
    Arguments = [Pipe, integer_to_list(Number)],
    {ok, open_port({spawn_executable, Program}, [{args, Arguments}, exit_status])}.

handle_info({Port, {exit_status, Status}}, Port) ->
    {stop, {shutdown, Status}, Port};
handle_info(_, Port) ->
    {noreply, Port}.

handle_call(_, _, Port) ->
    {reply, ok, Port}.

handle_cast(_, Port) ->
    {noreply, Port}.
